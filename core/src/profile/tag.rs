//! What a row's tag says beside its stack: the labels, and in the heap profile the size of the objects.

#![forbid(unsafe_code)]

use super::Kind;
use super::heap::SizeClass;
use super::labels::LabelSetId;

/// Bits of a heap row's tag that hold the size class; the labels are above them.
const CLASS_BITS: u32 = SizeClass::COUNT.ilog2();
/// A tag is half a word.
const LABEL_BITS: u32 = usize::BITS / 2 - CLASS_BITS;

/// The tag of a heap row; `None` if the labels don't fit beside the class.
pub(super) const fn of_heap(class: SizeClass, labels: LabelSetId) -> Option<u32> {
    let labels = labels.to_bits();
    if labels >> LABEL_BITS != 0 {
        return None;
    }
    Some(labels << CLASS_BITS | class.number())
}

/// The labels that a row of `kind` is about.
pub(crate) const fn labels(kind: Kind, tag: u32) -> LabelSetId {
    LabelSetId::from_bits(match kind {
        Kind::Allocs | Kind::Heap => tag >> CLASS_BITS,
        _ => tag,
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_heap_tag_has_both_and_stays_in_half_a_word() {
        let largest = SizeClass::of(usize::MAX);
        let last = LabelSetId::from_bits((1 << LABEL_BITS) - 1);
        for set in [LabelSetId::EMPTY, LabelSetId::from_bits(5), last] {
            let tags = [0, 100, usize::MAX].map(|size| of_heap(SizeClass::of(size), set).unwrap());
            assert!(tags[0] < tags[1] && tags[1] < tags[2]);
            assert!(tags.iter().all(|&tag| labels(Kind::Heap, tag) == set));
            assert!(
                tags.iter()
                    .all(|&tag| u64::from(tag) < 1 << (usize::BITS / 2))
            );
        }
        let beyond = LabelSetId::from_bits(last.to_bits() + 1);
        assert_eq!(of_heap(largest, beyond), None);
        assert_eq!(labels(Kind::Cpu, 77), LabelSetId::from_bits(77));
    }
}
