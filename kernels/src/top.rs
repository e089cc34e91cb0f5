//! The greatest of many logits, kept in a short list while they stream past.

use crate::simd::Simd;

/// An output and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The output; [`u32::MAX`] where the list is longer than there are logits above −∞.
    pub id: u32,
    /// Its logit.
    pub logit: f32,
}

impl Candidate {
    /// No output.
    pub const NONE: Candidate = Candidate { id: u32::MAX, logit: f32::NEG_INFINITY };
}

/// Takes `new` into `list`, greatest first, if it is greater than its last. Of equals the earlier one stays in front; a NaN
/// is never greater.
#[inline(always)]
pub(crate) fn insert(list: &mut [Candidate], new: Candidate) {
    if list.last().is_some_and(|last| new.logit > last.logit) {
        let at = list.partition_point(|candidate| candidate.logit >= new.logit);
        list[at..].rotate_right(1);
        list[at] = new;
    }
}

/// Takes whole vectors of logits into `list`, the first being that of output `first`.
#[inline(always)]
pub(crate) fn take<S: Simd>(s: S, logits: &[f32], first: usize, list: &mut [Candidate]) {
    let Some(&last) = list.last() else { return };
    let mut least = last.logit;
    for (first, logits) in (first..).step_by(S::LANES).zip(logits.chunks_exact(S::LANES)) {
        // SAFETY: exactly LANES elements.
        let v = unsafe { s.load(logits.as_ptr()) };
        if s.count_greater(v, s.splat(least)) > 0 {
            for (id, &logit) in (first as u32..).zip(logits) {
                insert(list, Candidate { id, logit });
            }
            least = list[list.len() - 1].logit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_in_order_and_ties_keep_theirs() {
        let mut list = [Candidate::NONE; 3];
        for (id, logit) in [0.5, f32::NAN, 2.0, f32::NEG_INFINITY, 2.0, -1.0, 0.5, 3.0].into_iter().enumerate() {
            insert(&mut list, Candidate { id: id as u32, logit });
        }
        assert_eq!(list.map(|candidate| candidate.id), [7, 2, 4]);
        let mut few = [Candidate::NONE; 2];
        insert(&mut few, Candidate { id: 9, logit: -5.0 });
        assert_eq!(few.map(|candidate| candidate.id), [9, u32::MAX]);
        insert(&mut [], Candidate { id: 0, logit: 1.0 });
    }
}
