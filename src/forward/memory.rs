//! What passages take of memory: bounds that are known before anything runs, so that a budget can be kept. A session that
//! has run batches of these shapes holds no more ([`Session::memory`]).

use super::session::{Found, Session};
use super::workspace::Workspace;
use lesion_kernels::HeadShape;

/// Rows from which on kernels pack their operand a piece at a time, outputs they compute at a time, and the rest of their
/// own measures: a bound on what they keep, not a copy of how they work.
mod kernels {
    pub(super) const FEW_ROWS: usize = 98;
    pub(super) const PIECE: usize = 768;
    pub(super) const STRIP: usize = 128;
    pub(super) const TASK_ROWS: usize = 1072;
    pub(super) const PANEL: usize = 16;
    pub(super) const GROUP: usize = 1024;
    pub(super) const STATE: usize = 80;
    pub(super) const BLOCK: usize = 256;
}

impl Session {
    /// Bytes that passages of up to `rows` rows need, their keys and values taking `slots` token slots.
    pub(crate) fn passage_bytes(&self, rows: usize, slots: usize) -> usize {
        use kernels::{BLOCK, FEW_ROWS, PANEL, PIECE, STRIP, TASK_ROWS};
        let config = self.model().config();
        let (d, inner) = (config.n_embd, config.n_inner);
        let shape = HeadShape { heads: config.n_head, head_dim: config.head_dim() };
        let own = rows * (2 * d + inner.max(3 * d)) + 2 * slots.next_multiple_of(16) * shape.width();
        let longest = d.max(inner);
        let packed = if rows > FEW_ROWS { (rows + PANEL) * longest.min(PIECE) } else { (rows + PANEL) * longest };
        let products = [(d, 3 * d), (d, d), (d, inner), (inner, d)];
        let waiting = products.map(|(k, n)| match rows {
            _ if rows > FEW_ROWS && k > PIECE => n.next_multiple_of(STRIP) * rows,
            // Few rows keep the sums of every block of k.
            _ => k.div_ceil(BLOCK) * rows.min(FEW_ROWS).next_multiple_of(PANEL) * (n + 2 * PANEL + 32),
        });
        let sums = rows.min(TASK_ROWS) + PANEL;
        let thread = STRIP * longest.min(PIECE) + sums * STRIP;
        let waiting = waiting.into_iter().max().unwrap_or(0);
        (own + packed + waiting + self.threads() * thread) * size_of::<f32>()
    }

    /// Bytes that a buffer takes twice while it grows, at most, on the way to passages of `rows` rows: one does at a time.
    pub(crate) fn growth_bytes(&self, rows: usize) -> usize {
        let config = self.model().config();
        rows * (3 * config.n_embd).max(config.n_inner) * size_of::<f32>()
    }

    /// Gives all buffers back; the next pass makes them anew.
    pub(crate) fn release_memory(&mut self) {
        let (team, _, work, found) = self.parts();
        team.release_scratch();
        *work = Workspace::default();
        *found = Found::default();
    }

    /// Bytes that scoring up to `rows` rows needs beside them, the first `references` being what the others are compared
    /// with.
    pub(crate) fn scoring_bytes(&self, rows: usize, references: usize) -> usize {
        use kernels::{GROUP, PANEL, PIECE, STATE, STRIP};
        let config = self.model().config();
        let d = config.n_embd;
        let groups = config.vocab_size.div_ceil(GROUP);
        let shared = rows * d + (rows + PANEL) * d;
        let sums = if d > PIECE { rows + PANEL } else { STRIP };
        let thread = STRIP * d.min(PIECE) + sums * STRIP + (rows * STATE).max(PANEL * d) + 2 * references * STRIP;
        // A group's partial results, and a row's scores, divergence and target, each of which grows to twice what it holds.
        let results = 2 * rows * (groups * 20 + 32 + 8 + 4);
        (shared + self.threads() * thread) * size_of::<f32>() + results
    }
}

#[cfg(all(test, feature = "mini"))]
mod tests {
    use crate::forward::{Attention, Changed, Chunk, Held, Passage, References, Rows, Session, SessionOptions, State};
    use crate::model::Model;
    use lesion_kernels::Against;

    /// What is said beforehand holds, and is not far off.
    #[test]
    fn bounds_hold() {
        let model = Model::mini().unwrap();
        for (tokens, copies, threads) in [(14, 1, 1), (14, 20, 2), (200, 1, 2), (200, 9, 2), (250, 8, 3)] {
            let options = SessionOptions { threads, ..SessionOptions::default() };
            let mut session = Session::new(&model, options).unwrap();
            let ids: Vec<u32> = (0..tokens as u32).collect();
            let chunk = Chunk::new([(&ids[..], tokens - 3..tokens, &References::NONE)]);
            let d = model.config().n_embd;
            let mut slab = vec![0.1; copies * chunk.rows() * d];
            let range = |i: usize| i * chunk.rows() * d..(i + 1) * chunk.rows() * d;
            let held = |i: usize| Held { own: range(i), rows: Rows::All, start: 0, base: None };
            let states: Vec<State<'_>> = (0..copies)
                .map(|i| State { hidden: held(i), heads: None, start: 0, changed: Changed::default() })
                .collect();
            let places: Vec<_> = (0..copies).map(|i| Some(range(i))).collect();
            let passage = Passage { layer: 3, attention: Attention::Whole, mlp: true, rows: Rows::All };
            session.pass_states(passage, &chunk, &mut slab, &states, &places, &mut []);
            let (held, bound) =
                (session.memory(), session.passage_bytes(copies * chunk.rows(), copies * chunk.slots()));
            assert!(held <= bound && bound <= 2 * held + (1 << 20), "{tokens} × {copies}: {held} of {bound} bytes");

            let rows = copies * chunk.scored_rows();
            let targets: Vec<u32> = chunk.targets().repeat(copies);
            let of: Vec<u32> = (0..rows as u32 - 3).map(|i| i % 3).collect();
            let against = Against { log_sum_exp: &[5.0; 3], of: &of };
            session.score_rows(&slab[..rows * d], &targets, Some(against));
            let bound = bound + session.scoring_bytes(rows, 3);
            assert!(session.memory() <= bound, "{tokens} × {copies}: {} of {bound} bytes", session.memory());
        }
    }
}
