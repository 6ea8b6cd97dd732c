//! Attention as one operation: queries, keys and values are channels of maps, so that no tensor of more than three
//! dimensions exists outside it.

/// Where the queries, keys or values of the heads are among a map's channels: head `h` has `width` of them from
/// `first + h·per_head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// First channel of head 0.
    pub first: usize,
    /// From one head to the next.
    pub per_head: usize,
    /// Channels of a head.
    pub width: usize,
}

/// For every window and head: `softmax(scale·Q·Kᵀ + bias + mask)·V`. A map is divided into windows of equal size, row by
/// row; global attention has one. Operands are the maps of Q, K and V, which may be one map. The output has the rows and
/// columns of the map of Q, and head by head the channels of V.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Number of heads.
    pub heads: usize,
    /// Q among its map's channels.
    pub query: Heads,
    /// K among its map's channels; as wide as Q.
    pub key: Heads,
    /// V among its map's channels.
    pub value: Heads,
    /// Rows and columns of a window in the map of Q.
    pub query_window: [usize; 2],
    /// Rows and columns of a window in the maps of K and V; there are as many windows as in that of Q.
    pub key_window: [usize; 2],
    /// Factor of the scores.
    pub scale: f32,
    /// Added to the scores: `[heads, queries, keys]`, or nothing.
    pub bias: Vec<f32>,
    /// Added to the scores: `[windows, queries, keys]`, or nothing.
    pub mask: Vec<f32>,
}

impl Attention {
    /// Queries of a window.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.query_window[0] * self.query_window[1]
    }

    /// Keys of a window.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.key_window[0] * self.key_window[1]
    }

    /// Multiply-accumulates of both products, for an output of `positions`.
    #[must_use]
    pub fn macs(&self, positions: usize) -> u64 {
        (positions * self.keys() * self.heads * (self.query.width + self.value.width)) as u64
    }
}
