//! Copies between a matrix and pieces that lie elsewhere, on all threads.

use crate::gemm::SharedOut;
use crate::pool::Leader;
use std::ops::Range;

/// Copying an element costs about as much as this many multiply-adds.
const WORK: usize = 10;

/// `out`, which the pieces fill one behind the other.
pub(crate) fn gather(leader: &mut Leader<'_>, pieces: &[&[f32]], out: &mut [f32]) {
    let mut end = 0;
    let starts: Vec<usize> = pieces
        .iter()
        .map(|piece| {
            end += piece.len();
            end - piece.len()
        })
        .collect();
    assert_eq!(end, out.len(), "gather: elements of the pieces and of the matrix");
    let shared = SharedOut::new(out);
    leader.share(WORK * end, pieces.len(), |i| {
        // SAFETY: each task has a piece of the output of its own, inside it.
        unsafe { std::slice::from_raw_parts_mut(shared.at(starts[i]), pieces[i].len()) }.copy_from_slice(pieces[i]);
    });
}

/// Copies ranges of `from` to places in `into`: `(from, to)`, equally long.
pub(crate) fn scatter(
    leader: &mut Leader<'_>,
    from: &[f32],
    into: &mut [f32],
    copies: &[(Range<usize>, Range<usize>)],
) {
    let inside = |range: &Range<usize>, len: usize| range.start <= range.end && range.end <= len;
    let fits = |(of, to): &(_, _)| inside(of, from.len()) && inside(to, into.len()) && of.len() == to.len();
    assert!(copies.iter().all(fits), "scatter: ranges lie outside or differ in length");
    let mut places: Vec<&Range<usize>> = copies.iter().map(|(_, to)| to).collect();
    // Behind an empty one, which covers nothing, may come another that begins there.
    places.sort_unstable_by_key(|to| (to.start, to.end));
    assert!(places.windows(2).all(|pair| pair[0].end <= pair[1].start), "scatter: places overlap");
    let elements: usize = copies.iter().map(|(from, _)| from.len()).sum();
    let shared = SharedOut::new(into);
    leader.share(WORK * elements, copies.len(), |i| {
        let (source, to) = &copies[i];
        // SAFETY: the places are inside and apart (asserted), and each task has one.
        unsafe { std::slice::from_raw_parts_mut(shared.at(to.start), to.len()) }.copy_from_slice(&from[source.clone()]);
    });
}
