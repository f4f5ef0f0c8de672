//! The outputs: what they are called (`names`), whether they are good (`verify`, `decode`,
//! `sync`), and how they appear all or none (`publish`, `parcel`; `delivery` is the frame around an
//! op).

pub(super) mod decode;
pub(super) mod delivery;
pub(super) mod names;
pub(super) mod parcel;
pub(super) mod publish;
pub(super) mod sync;
pub(super) mod verify;
