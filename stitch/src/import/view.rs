//! How the dimensions of an ONNX value lie on the map that holds its values.
//!
//! A reshape, a transpose, a split or a slice moves nothing here: it only says differently where a value is read. So heads,
//! windows and their ways back, however an exporter writes them, end as the same view, and an operation asks the view for
//! what it needs: channels last, channels first, or heads.

use ndarray::ArrayD;

/// A part of an axis of a map: `size` indices, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Axis of the map.
    pub axis: usize,
    /// Indices; never 1.
    pub size: usize,
    /// From one to the next.
    pub step: usize,
}

/// A value whose dimensions are runs over the axes of something stored, outer runs first. A dimension of 1 has no run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Sizes of the axes: `[H, W, C]` of a map.
    pub extents: Vec<usize>,
    /// First index on each axis.
    pub start: Vec<usize>,
    /// Runs of each dimension.
    pub dims: Vec<Vec<Run>>,
}

/// Axis of channels of a map.
pub(super) const CHANNELS: usize = 2;

impl View {
    /// Dimensions that are whole axes, or 1.
    pub fn of_axes(extents: &[usize], axes: &[Option<usize>]) -> Self {
        let run = |axis: &usize| Run { axis: *axis, size: extents[*axis], step: 1 };
        let dims = axes.iter().map(|axis| axis.iter().map(run).collect()).collect();
        Self { extents: extents.to_vec(), start: vec![0; extents.len()], dims }.merged()
    }

    /// `[1, C, H, W]` of a map `[H, W, C]`.
    pub fn channels_first(shape: [usize; 3]) -> Self {
        Self::of_axes(&shape, &[None, Some(CHANNELS), Some(0), Some(1)])
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(|runs| runs.iter().map(|run| run.size).product()).collect()
    }

    /// Without runs of 1, and with neighbours of one dimension that continue one another as one run.
    pub fn merged(mut self) -> Self {
        for dim in &mut self.dims {
            let mut runs: Vec<Run> = vec![];
            for &run in dim.iter().filter(|run| run.size != 1) {
                match runs.last_mut() {
                    Some(outer) if outer.axis == run.axis && outer.step == run.step * run.size => {
                        *outer = Run { size: outer.size * run.size, ..run };
                    }
                    _ => runs.push(run),
                }
            }
            *dim = runs;
        }
        self
    }

    /// Other dimensions in the same order, if each is made of whole runs or of parts of one.
    pub fn reshape(&self, shape: &[usize]) -> Option<Self> {
        let mut left: Vec<Run> = self.dims.iter().flatten().rev().copied().collect();
        let mut dims = vec![];
        for &size in shape {
            let mut needed = size;
            let mut dim = vec![];
            while needed > 1 {
                let run = left.pop()?;
                if needed.is_multiple_of(run.size) {
                    needed /= run.size;
                    dim.push(run);
                } else if run.size.is_multiple_of(needed) {
                    let inner = run.size / needed;
                    dim.push(Run { size: needed, step: run.step * inner, ..run });
                    left.push(Run { size: inner, ..run });
                    needed = 1;
                } else {
                    return None;
                }
            }
            dims.push(dim);
        }
        let whole = left.is_empty() && !shape.contains(&0);
        whole.then(|| Self { dims, ..self.clone() }.merged())
    }

    /// Dimensions in another order.
    pub fn transpose(&self, order: &[usize]) -> Option<Self> {
        let every = order.len() == self.dims.len() && (0..order.len()).all(|dim| order.contains(&dim));
        every.then(|| Self { dims: order.iter().map(|&dim| self.dims[dim].clone()).collect(), ..self.clone() })
    }

    /// `count` indices of a dimension from `first`, `by` apart.
    pub fn slice(&self, dim: usize, first: usize, count: usize, by: usize) -> Option<Self> {
        let mut sliced = self.clone();
        let size: usize = self.dims[dim].iter().map(|run| run.size).product();
        if first + (count.max(1) - 1) * by >= size || count == 0 {
            return None;
        }
        if count < size {
            let [run] = &mut sliced.dims[dim][..] else { return None };
            sliced.start[run.axis] += first * run.step;
            *run = Run { size: count, step: run.step * by, ..*run };
        }
        Some(sliced.merged())
    }

    /// Whether a dimension is a whole axis, step by step.
    pub fn is_axis(&self, dim: usize, axis: usize) -> bool {
        let size = self.extents[axis];
        let whole = Run { axis, size, step: 1 };
        self.start[axis] == 0 && if size == 1 { self.dims[dim].is_empty() } else { self.dims[dim] == [whole] }
    }

    /// Whether every element is read.
    pub fn is_full(&self) -> bool {
        (0..self.extents.len()).all(|axis| {
            let runs = self.dims.iter().flatten().filter(|run| run.axis == axis);
            self.start[axis] == 0 && runs.map(|run| run.size).product::<usize>() == self.extents[axis]
        })
    }

    /// Whether it is `[1, C, H, W]`.
    pub fn is_channels_first(&self) -> bool {
        self.dims.len() == 4
            && self.dims[0].is_empty()
            && [(1, CHANNELS), (2, 0), (3, 1)].iter().all(|&(dim, axis)| self.is_axis(dim, axis))
    }

    /// Whether the last dimension is that of channels and all positions are read, in whatever order.
    pub fn is_channels_last(&self) -> bool {
        self.dims.len().checked_sub(1).is_some_and(|last| self.is_axis(last, CHANNELS)) && self.is_full()
    }

    /// The same positions of a map of other channels, where dimension `dim` is that of channels.
    pub fn with_channels(&self, dim: usize, channels: usize) -> Self {
        let mut view = self.clone();
        view.extents[CHANNELS] = channels;
        view.dims[dim] = vec![Run { axis: CHANNELS, size: channels, step: 1 }];
        view.merged()
    }

    /// With dimensions of 1 in front, up to `rank`.
    pub fn with_rank(mut self, rank: usize) -> Self {
        let missing = rank.saturating_sub(self.dims.len());
        self.dims.splice(..0, std::iter::repeat_n(vec![], missing));
        self
    }

    /// Axes on which a constant of a shape depends when it is combined with this value.
    pub fn depends(&self, shape: &[usize]) -> Vec<bool> {
        let mut axes = vec![false; self.extents.len()];
        for (runs, _) in self.dims.iter().rev().zip(shape.iter().rev()).filter(|(_, size)| **size > 1) {
            runs.iter().for_each(|run| axes[run.axis] = true);
        }
        axes
    }

    /// A constant that ONNX combines with this value, element by element as they are stored; `None` if the shapes do not
    /// fit or some elements are not read.
    pub fn spread(&self, constant: &ArrayD<f32>) -> Option<Vec<f32>> {
        let spread = constant.broadcast(self.shape()).filter(|_| self.is_full())?;
        let mut stored = vec![0.0; self.extents.iter().product()];
        let pitch = |axis: usize| self.extents[axis + 1..].iter().product::<usize>();
        let runs: Vec<(usize, usize)> =
            self.dims.iter().flatten().rev().map(|run| (run.size, run.step * pitch(run.axis))).collect();
        for (number, &value) in spread.iter().enumerate() {
            let mut rest = number;
            let mut place = 0;
            for (size, pitch) in &runs {
                place += rest % size * pitch;
                rest /= size;
            }
            stored[place] = value;
        }
        Some(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: [usize; 3] = [4, 6, 10];

    #[test]
    fn windows_and_back_is_where_one_began() {
        let map = View::of_axes(&MAP, &[None, Some(0), Some(1), Some(2)]);
        let windows = map.reshape(&[1, 2, 2, 2, 3, 10]).and_then(|view| view.transpose(&[0, 1, 3, 2, 4, 5]));
        let tokens = windows.and_then(|view| view.reshape(&[4, 6, 10])).expect("windows of 2x3");
        assert!(tokens.is_channels_last() && tokens != map);
        let back = tokens.reshape(&[1, 2, 2, 2, 3, 10]).and_then(|view| view.transpose(&[0, 1, 3, 2, 4, 5]));
        assert_eq!(back.and_then(|view| view.reshape(&[1, 4, 6, 10])), Some(map));
    }

    #[test]
    fn dimensions_that_mix_axes_are_split_between_them_only() {
        let tokens = View::channels_first(MAP).reshape(&[1, 10, 24]).and_then(|view| view.transpose(&[0, 2, 1]));
        let tokens = tokens.expect("tokens");
        assert_eq!((tokens.shape(), tokens.is_channels_last()), (vec![1, 24, 10], true));
        assert_eq!(tokens.reshape(&[1, 5, 48]), None, "five parts of 24 positions and 10 channels");
        assert_eq!(tokens.reshape(&[1, 24, 11]), None);
        let heads = tokens.reshape(&[24, 5, 2]).expect("five heads");
        assert_eq!(heads.dims[1..], [vec![Run { axis: 2, size: 5, step: 2 }], vec![Run { axis: 2, size: 2, step: 1 }]]);
    }

    #[test]
    fn a_slice_is_no_longer_the_whole() {
        let map = View::channels_first(MAP);
        let rows = map.slice(2, 1, 2, 2).expect("two rows");
        assert_eq!((rows.start[0], &rows.dims[2][..]), (1, &[Run { axis: 0, size: 2, step: 2 }][..]));
        assert!(!rows.is_full() && map.is_full());
        assert_eq!((map.slice(2, 1, 2, 3), map.slice(2, 4, 1, 1)), (None, None), "beyond the end");
        assert_eq!(map.slice(2, 0, 4, 1), Some(map));
    }

    #[test]
    fn constants_are_spread_in_the_order_of_the_map() {
        let tokens = View::channels_first([2, 2, 2]).reshape(&[1, 2, 4]).expect("channels, positions");
        let constant = ArrayD::from_shape_fn(vec![2, 4], |index| (index[0] * 10 + index[1]) as f32);
        assert_eq!(tokens.spread(&constant), Some(vec![0.0, 10.0, 1.0, 11.0, 2.0, 12.0, 3.0, 13.0]));
        assert_eq!(tokens.depends(&[4]), [true, true, false]);
        assert_eq!(tokens.depends(&[2, 1]), [false, false, true]);
        assert_eq!(tokens.spread(&ArrayD::zeros(vec![3])), None);
    }
}
