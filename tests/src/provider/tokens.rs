//! What gives tokens to those who ask simulated providers.

pub mod google;
