//! Workers that use too much memory: one whose programs exceed the limit together, where the kernel
//! does not enforce it, is killed; one that has grown itself is replaced when it is idle.

use super::Crew;
use crate::policy::claim::WorkerId;
use crate::policy::event::{Action, MemoryUsed};
use crate::policy::machine::worker::WorkerEvent;
use crate::policy::settings::TypeSettings;
use crate::policy::time::Now;

/// What a look at its memory means for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// It has grown so much that another one is to take its place.
    Worn,
    /// It and its programs exceed this limit.
    Exceeds {
        limit: u64,
        together: u64,
    },
}

fn judge(settings: &TypeSettings, used: MemoryUsed) -> Verdict {
    if let (Some(limit), Some(together)) = (settings.memory_bytes_max, used.together)
        && together > limit
    {
        return Verdict::Exceeds { limit, together };
    }
    let above = settings.recycle_above_bytes;
    if above > 0 && used.own > above { Verdict::Worn } else { Verdict::Fine }
}

impl Crew {
    pub(super) fn on_memory_used(
        &mut self,
        now: Now,
        worker: WorkerId,
        used: MemoryUsed,
        out: &mut Vec<Action>,
    ) {
        let Some(one) = self.workers.get_mut(&worker) else { return };
        match judge(&one.settings, used) {
            Verdict::Fine => one.worn = false,
            Verdict::Worn => one.worn = true,
            Verdict::Exceeds { limit, together } => {
                one.out_of_memory.get_or_insert_with(|| {
                    format!(
                        "exceeded its memory limit of {} together with its programs ({}; soft: \
                         looked at once a second, because no memory controller enforces it here)",
                        in_units(limit),
                        in_units(together)
                    )
                });
                self.worker_event(now, worker, WorkerEvent::Kill, out);
            }
        }
    }
}

/// Bytes for people, to a tenth.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
pub fn in_units(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size);
    unit.map_or_else(
        || format!("{bytes} bytes"),
        |(name, size)| format!("{:.1} {name}", bytes as f64 / *size as f64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 64 << 20;

    fn verdict(own: u64, together: Option<u64>) -> Verdict {
        let settings = TypeSettings {
            recycle_above_bytes: 1_000,
            memory_bytes_max: Some(LIMIT),
            ..TypeSettings::of_a_removed_type()
        };
        judge(&settings, MemoryUsed { own, together })
    }

    #[test]
    fn a_limit_is_exceeded_only_above_it_and_only_when_all_was_looked_at() {
        assert_eq!(verdict(1_000, Some(LIMIT)), Verdict::Fine);
        let together = LIMIT + 1;
        assert_eq!(verdict(1, Some(together)), Verdict::Exceeds { limit: LIMIT, together });
        assert_eq!(verdict(together, None), Verdict::Worn, "the kernel enforces the limit");
        assert_eq!(verdict(1_001, Some(LIMIT)), Verdict::Worn);
        let without = TypeSettings::of_a_removed_type();
        let used = MemoryUsed { own: u64::MAX, together: Some(u64::MAX) };
        assert_eq!(judge(&without, used), Verdict::Fine);
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        for (bytes, text) in
            [(0, "0 bytes"), (1_536, "1.5 KiB"), (LIMIT, "64.0 MiB"), (4 << 30, "4.0 GiB")]
        {
            assert_eq!(in_units(bytes), text);
        }
    }
}
