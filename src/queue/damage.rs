//! Telling of damage: a few lines, however much of it there is.

/// What was found damaged, told of and not.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Segments in which something is missing, since the last line about them.
    segments: u64,
    /// Bytes in these that are no frame.
    bytes: u64,
    /// Records that should be there and are not.
    records: u64,
    /// Records that were in such a line, or will be, and are not counted as dropped yet.
    announced: u64,
    /// Blocks whose content turned out damaged.
    blocks: u64,
}

impl Damage {
    /// A segment was counted: `bytes` in it are no frame, and `records` are missing.
    pub(super) fn note(&mut self, bytes: u64, records: u64) {
        if bytes > 0 || records > 0 {
            self.segments += 1;
            self.bytes = self.bytes.saturating_add(bytes);
            self.records = self.records.saturating_add(records);
            self.announced = self.announced.saturating_add(records);
        }
    }

    /// Everything is counted: says in one line what is missing.
    pub(super) fn tell(&mut self) {
        if self.segments > 0 {
            log::warn!(
                "queue: {} records at least in {} segments are damaged or were removed by somebody else, {} bytes skipped",
                self.records,
                self.segments,
                self.bytes
            );
            *self = Self { announced: self.announced, blocks: self.blocks, ..Self::default() };
        }
    }

    /// So many missing records are counted as dropped now. Returns how many of them no line was about.
    pub(super) fn counted(&mut self, records: u64) -> u64 {
        let told = records.min(self.announced);
        self.announced -= told;
        records - told
    }

    /// One more block is given up because of its content. Returns how many there were if that is worth a line: fewer and
    /// fewer are.
    pub(super) fn block(&mut self) -> Option<u64> {
        self.blocks = self.blocks.saturating_add(1);
        Some(self.blocks).filter(|blocks| blocks.is_power_of_two())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_was_about_needs_no_other() {
        let mut damage = Damage::default();
        damage.note(0, 0);
        assert_eq!((damage.segments, damage.counted(3)), (0, 3));
        damage.note(10, 5);
        damage.note(0, 2);
        assert_eq!((damage.segments, damage.bytes, damage.records), (2, 10, 7));
        damage.tell();
        assert_eq!((damage.segments, damage.records), (0, 0), "told once");
        assert_eq!((damage.counted(4), damage.counted(4), damage.counted(4)), (0, 1, 4));
    }

    #[test]
    fn of_damaged_blocks_fewer_and_fewer_get_a_line() {
        let mut damage = Damage::default();
        let told: Vec<u64> = (0..100).filter_map(|_| damage.block()).collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64]);
    }

    #[test]
    fn bytes_that_are_no_frame_are_damage_also_where_no_record_is_missed_and_a_line_forgets_no_blocks() {
        let mut damage = Damage::default();
        damage.note(10, 0);
        damage.note(0, 1);
        assert_eq!((damage.segments, damage.bytes, damage.records), (2, 10, 1));
        let told: Vec<u64> = (0..3).filter_map(|_| damage.block()).collect();
        damage.tell();
        assert_eq!((told, damage.block()), (vec![1, 2], Some(4)));
    }
}
