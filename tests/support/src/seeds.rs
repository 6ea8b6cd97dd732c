//! Images to start from: the sample, and what it lacks, one kind of op each.

use plan::layout::NO_TENSOR;
use plan::{ImageWriter, Op, OpKind, TensorId, sample};

/// The residual segment of the sample: its convolution `[4, 4, 8]` → `[4, 4, 8]`, handed on in rows, then its addition.
const CONV: usize = 4;
const ADD: usize = 5;
/// The mean of the first head.
const MEAN: usize = 1;

/// Changes the sample.
type Edit = fn(&mut ImageWriter);

/// Valid images, small enough that a fuzzer changes every byte.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let edits: [(&str, Edit); 8] = [
        ("sample", |_| {}),
        ("depthwise", |w| (w.ops[CONV].kind, w.ops[CONV].groups) = (OpKind::Depthwise, 8)),
        ("grouped", |w| w.ops[CONV].groups = 2),
        ("maximum", |w| w.ops[MEAN].kind = OpKind::MaxPool),
        ("whole", whole),
        ("twice", |w| {
            whole(w);
            w.ops[ADD].input2 = w.ops[ADD].input;
        }),
        ("in place", |w| {
            whole(w);
            let (sum, operand) = (w.ops[ADD].output.index(), w.ops[CONV].output.index());
            w.tensors[operand].offset = w.tensors[sum].offset;
            (w.ops[ADD].input, w.ops[ADD].input2) = (w.ops[ADD].input2, w.ops[ADD].input);
        }),
        ("concatenation", |w| {
            let (input, sum, output) = (w.ops[ADD].input, w.ops[ADD].input2, w.ops[ADD].output);
            w.ops[CONV] = part(&w.ops[ADD], input, sum, 0, 8);
            // Enlarged, and shifted over three edges.
            w.ops[ADD] = part(&w.ops[ADD], sum, output, 0, 8);
            (w.ops[ADD].repeat, w.ops[ADD].origin) = ([2, 2], [-1, 1, 2]);
            // Nothing but convolutions has overlays.
            w.overlays.clear();
            w.configs[2].overlays = 0;
        }),
    ];
    let built = edits.map(|(name, edit)| {
        let mut writer = sample::writer();
        edit(&mut writer);
        (name, writer.finish())
    });
    let built = built.into_iter();
    built
        .chain([
            ("transformer", sample::transformer().finish()),
            ("detector", sample::detector().finish()),
            ("dense", sample::dense().finish()),
        ])
        .collect()
}

/// The convolution's map whole, at the cost of the start of its scratch.
fn whole(w: &mut ImageWriter) {
    let Op { output, scratch, .. } = w.ops[CONV];
    w.ops[CONV].flags = 0;
    let before = w.tensors[output.index()].bytes();
    w.tensors[output.index()].shape[0] = 4;
    let more = (w.tensors[output.index()].bytes() - before) as u16;
    w.tensors[scratch.index()].shape[2] -= more;
    w.tensors[scratch.index()].offset += u32::from(more);
}

fn part(like: &Op, input: TensorId, output: TensorId, first_channel: u16, channels: u16) -> Op {
    let like =
        Op { kind: OpKind::Move, input, input2: TensorId(NO_TENSOR), output, scratch: TensorId(NO_TENSOR), ..*like };
    Op { step: [1, 1], repeat: [1, 1], first_channel, groups: channels, ..like }
}
