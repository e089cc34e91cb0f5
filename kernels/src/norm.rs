//! LayerNorm over the rows of a matrix.
