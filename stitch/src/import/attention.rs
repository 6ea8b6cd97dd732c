//! Attention, as the product of two maps makes it: scores, what is added to them, a softmax, and a second product.

use ndarray::ArrayD;
use tract_onnx::pb;

use super::view::{CHANNELS, Run, View};
use super::{Attributes, Import, Mapped, Value, constant};
use crate::error::Error;
use crate::graph::{Attention, Heads, Op};

/// Axes of scores.
const WINDOWS: usize = 0;
const HEADS: usize = 1;
const QUERIES: usize = 2;
const KEYS: usize = 3;

/// The scores of an attention whose second product is still to come.
#[derive(Clone, Debug)]
pub(super) struct Scores {
    query: Operand,
    key: Operand,
    /// Dimensions over windows, heads, queries, keys.
    pub view: View,
    scale: f32,
    bias: Vec<f32>,
    mask: Vec<f32>,
    softmax: bool,
}

/// Queries, keys or values among a map's channels.
#[derive(Clone, Debug)]
struct Operand {
    tensor: usize,
    shape: [usize; 3],
    heads: usize,
    part: Heads,
    window: [usize; 2],
    /// Windows and heads: the dimensions before the last two.
    leading: Vec<Vec<Run>>,
}

impl Operand {
    /// The operand whose dimension `tokens` holds the positions of a window and `width` the channels of a head.
    fn of(mapped: &Mapped, tokens: usize, width: usize) -> Option<Self> {
        let view = &mapped.view;
        let &[height, columns, channels] = &view.extents[..] else { return None };
        let leading: Vec<Vec<Run>> = view.dims[..view.dims.len().checked_sub(2)?].to_vec();
        let mut window = [1, 1];
        for (place, run) in view.dims[tokens].iter().enumerate() {
            let first_of_axis = view.dims[tokens][..place].iter().all(|before| before.axis < run.axis);
            if run.axis == CHANNELS || run.step != 1 || !first_of_axis {
                return None;
            }
            window[run.axis] = run.size;
        }
        let size = match view.dims[width][..] {
            [] => 1,
            [Run { axis: CHANNELS, size, step: 1 }] => size,
            _ => return None,
        };
        let (mut heads, mut per_head, mut grid) = (1, size, [1, 1]);
        for run in leading.iter().flatten() {
            if run.axis == CHANNELS && heads == 1 {
                (heads, per_head) = (run.size, run.step);
            } else if run.axis != CHANNELS && grid[run.axis] == 1 && run.step == window[run.axis] {
                grid[run.axis] = run.size;
            } else {
                return None;
            }
        }
        let whole = window[0] * grid[0] == height && window[1] * grid[1] == columns && view.start[..2] == [0, 0];
        let part = Heads { first: view.start[CHANNELS], per_head, width: size };
        let inside = part.first + (heads - 1) * per_head + size <= channels;
        let shape = [height, columns, channels];
        (whole && inside).then_some(Self { tensor: mapped.tensor, shape, heads, part, window, leading })
    }

    /// Windows in rows and columns.
    fn grid(&self) -> [usize; 2] {
        [self.shape[0] / self.window[0], self.shape[1] / self.window[1]]
    }

    /// The leading dimensions over windows and heads.
    fn over_scores(&self) -> Vec<Vec<Run>> {
        let across = self.grid()[1];
        let over = |run: &Run| match run.axis {
            CHANNELS => Run { axis: HEADS, size: run.size, step: 1 },
            0 => Run { axis: WINDOWS, size: run.size, step: across },
            _ => Run { axis: WINDOWS, size: run.size, step: 1 },
        };
        self.leading.iter().map(|runs| runs.iter().map(over).collect()).collect()
    }

    fn positions(&self) -> usize {
        self.window[0] * self.window[1]
    }
}

impl Import<'_> {
    /// A matrix product of two values: the scores of attention, or the mix of its values.
    pub(super) fn product(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        if let Value::Scores(scores) = self.value(node, 0)? {
            let scores = scores.clone();
            return self.mix(node, &scores);
        }
        let mut scale = 1.0;
        let mut operand = |import: &mut Self, operand: usize, dims: [usize; 2]| -> Result<Operand, Error> {
            let mut mapped = import.mapped(node, operand)?;
            match mapped.function.line() {
                Some((factor, 0.0)) => scale *= factor,
                _ => mapped = import.computed(node, mapped)?,
            }
            let rank = mapped.view.dims.len();
            let part = rank.checked_sub(2).and_then(|_| Operand::of(&mapped, rank - dims[0], rank - dims[1]));
            part.ok_or_else(|| {
                let detail =
                    format!("a product of two maps whose input {operand} {:?} is no heads", mapped.view.shape());
                import.refuse(node, format!("{detail} of whole windows"))
            })
        };
        let (query, key) = (operand(self, 0, [2, 1])?, operand(self, 1, [1, 2])?);
        let same = query.over_scores() == key.over_scores() && query.grid() == key.grid();
        if !same || query.heads != key.heads || query.part.width != key.part.width {
            return Err(self.refuse(node, "a product of two maps whose windows or heads differ"));
        }
        let grid = query.grid();
        let extents = vec![grid[0] * grid[1], query.heads, query.positions(), key.positions()];
        let mut dims = query.over_scores();
        dims.extend(View::of_axes(&extents, &[Some(QUERIES), Some(KEYS)]).dims);
        let view = View { start: vec![0; 4], extents, dims }.merged();
        let scores = Scores { query, key, view, scale, bias: vec![], mask: vec![], softmax: false };
        self.bind(node, Value::Scores(Box::new(scores)));
        Ok(())
    }

    /// A factor of scores, or a table that is added to them.
    pub(super) fn adjust_scores(&mut self, node: &pb::NodeProto, order: [usize; 2]) -> Result<(), Error> {
        let Value::Scores(scores) = self.value(node, order[0])? else { return Err(self.refuse(node, "no scores")) };
        let mut scores = scores.clone();
        let table = self.floats(node, order[1])?.to_owned();
        if scores.softmax {
            return Err(
                self.refuse(node, "between the softmax of attention and its second product nothing is supported")
            );
        }
        scores.view = scores.view.with_rank(table.ndim());
        match (node.op_type.as_str(), order[0], table.first()) {
            ("Mul", _, Some(&factor)) if table.len() == 1 => scores.multiply(factor),
            ("Div", 0, Some(&divisor)) if table.len() == 1 => scores.multiply(1.0 / divisor),
            ("Add", ..) => {
                let added = scores.add(&table);
                added.ok_or_else(|| {
                    let shapes = format!("a table of {:?} for scores of {:?}", table.shape(), scores.view.shape());
                    self.refuse(node, format!("{shapes}; one a head, or one a window, is supported"))
                })?;
            }
            _ => return Err(self.refuse(node, "scores are only multiplied by a number or added to")),
        }
        self.bind(node, Value::Scores(scores));
        Ok(())
    }

    pub(super) fn softmax(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let Value::Scores(scores) = self.value(node, 0)? else {
            return Err(self.refuse(node, "only in attention is it supported"));
        };
        let mut scores = scores.clone();
        let rank = scores.view.dims.len();
        let axis = constant::place(Attributes(node).integer("axis", -1), rank);
        if scores.softmax || axis.is_none_or(|axis| axis + 1 != rank || !scores.view.is_axis(axis, KEYS)) {
            return Err(self.refuse(node, "only over the keys of attention is it supported"));
        }
        scores.softmax = true;
        self.bind(node, Value::Scores(scores));
        Ok(())
    }

    /// The second product.
    fn mix(&mut self, node: &pb::NodeProto, scores: &Scores) -> Result<(), Error> {
        let mapped = self.mapped(node, 1)?;
        let mapped = self.computed(node, mapped)?;
        let rank = scores.view.dims.len();
        let value =
            (mapped.view.dims.len() == rank && rank > 1).then(|| Operand::of(&mapped, rank - 2, rank - 1)).flatten();
        let Some(value) = value.filter(|_| scores.softmax) else {
            return Err(self.refuse(node, "a product with scores that is not attention's second"));
        };
        let Scores { query, key, view, .. } = scores;
        let leading = View { dims: value.over_scores(), start: vec![0; 4], extents: view.extents.clone() }.merged();
        let same = leading.dims[..] == view.dims[..rank - 2]
            && view.is_axis(rank - 2, QUERIES)
            && view.is_axis(rank - 1, KEYS)
            && (value.window, value.heads, value.grid()) == (key.window, key.heads, key.grid());
        if !same {
            return Err(self.refuse(node, "values whose windows or heads are not those of the scores"));
        }
        let wide = value.part.width;
        let extents = vec![query.shape[0], query.shape[1], query.heads * wide];
        let mut dims = value.leading.clone();
        for run in dims.iter_mut().flatten() {
            run.step = if run.axis == CHANNELS { wide } else { query.window[run.axis] };
        }
        let window = |axis: usize| Run { axis, size: query.window[axis], step: 1 };
        dims.push(vec![window(0), window(1)]);
        dims.push(vec![Run { axis: CHANNELS, size: wide, step: 1 }]);
        let attention = Attention {
            heads: query.heads,
            query: query.part,
            key: key.part,
            value: value.part,
            query_window: query.window,
            key_window: key.window,
            scale: scores.scale,
            bias: scores.bias.clone(),
            mask: scores.mask.clone(),
        };
        let inputs = vec![query.tensor, key.tensor, value.tensor];
        let view = View { extents, start: vec![0; 3], dims }.merged();
        self.push(node, Op::Attention(Box::new(attention)), inputs, view)
    }
}

impl Scores {
    fn multiply(&mut self, factor: f32) {
        self.scale *= factor;
        self.bias.iter_mut().chain(&mut self.mask).for_each(|value| *value *= factor);
    }

    /// Adds a table that depends on heads or on windows, if it fits.
    fn add(&mut self, table: &ArrayD<f32>) -> Option<()> {
        let depends = self.view.depends(table.shape());
        let over = if depends[WINDOWS] { WINDOWS } else { HEADS };
        if depends[WINDOWS] && depends[HEADS] {
            return None;
        }
        let values = self.view.spread(table)?;
        let [windows, heads, queries, keys] = self.view.extents[..] else { return None };
        let sums = if over == WINDOWS { &mut self.mask } else { &mut self.bias };
        sums.resize(queries * keys * if over == WINDOWS { windows } else { heads }, 0.0);
        // Along the other axis all are equal: those of head 0, or of window 0.
        let first = |number: usize| if over == WINDOWS { number * heads } else { number } * queries * keys;
        for (number, sums) in sums.chunks_exact_mut(queries * keys).enumerate() {
            let values = &values[first(number)..][..queries * keys];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        Some(())
    }
}
