//! Every op, from float to the bytes of an image and through the real runtime, against float on the same values.

use ndarray::Array4;
use plan::{ConfigId, Image, OpKind};

use super::numbers::{addition, fixed_point};
use super::ranges::{of_pixels, to_integer};
use super::*;
use crate::cost::CostModel;
use crate::emit::{Labels, Measured, emit};
use crate::family::Packing;
use crate::graph::{Attention, Clamp, Function, Heads, PoolKind, Window};
use crate::learn::tests::Random;
use crate::network::{Cut, Extent, Kind, Path, Segment};
use crate::{float, layers, place, verify};

const INPUT: [usize; 3] = [9, 8, 3];

fn pixels() -> Pixels {
    Pixels { mean: vec![0.5, 0.4, 0.6], std: vec![0.25, 0.2, 0.3] }
}

/// A convolution whose weights int8 holds exactly, so that what differs from float is rounding alone.
fn conv(random: &mut Random, [inputs, outputs]: [usize; 2], window: Window, groups: usize, clamp: Clamp) -> Op {
    let [rows, columns] = window.kernel;
    let mut weights = Array4::zeros([outputs, rows, columns, inputs / groups]);
    for mut channel in weights.outer_iter_mut() {
        let step = (random.next() + 1.5) * 0.005;
        channel.mapv_inplace(|_: f32| (random.next() * 127.0).round() * step);
        channel[[0, 0, 0]] = 127.0 * step;
    }
    let bias = (0..outputs).map(|_| random.next()).collect();
    Op::Conv { weights, bias, window, groups, clamp }
}

fn window(kernel: usize, stride: usize, pad: [usize; 4]) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], pad }
}

/// One segment from the input to the output; ranges are those of the float run.
fn calibrated(ops: Vec<(Op, Vec<usize>, [usize; 3])>, inputs: &[Vec<f32>]) -> Calibrated {
    let mut tensors = vec![INPUT];
    let mut nodes = vec![];
    for (number, (op, inputs, shape)) in ops.into_iter().enumerate() {
        nodes.push(Node { name: format!("node{number}"), op, inputs, output: number + 1 });
        tensors.push(shape);
    }
    let output = tensors.len() - 1;
    let mut extents = vec![Extent { min: 0.0, max: 0.0 }; tensors.len()];
    let mut channels: Vec<Vec<f32>> = tensors.iter().map(|[_, _, channels]| vec![0.0; *channels]).collect();
    for input in inputs {
        let values = float::run(&nodes, &tensors, 0, input);
        for ((extent, channels), values) in extents.iter_mut().zip(&mut channels).zip(values) {
            for (index, value) in values.into_iter().enumerate() {
                let count = channels.len();
                channels[index % count] = channels[index % count].max(value.abs());
                *extent = Extent { min: extent.min.min(value), max: extent.max.max(value) };
            }
        }
    }
    let cut = |shape| Cut { shape, anchor: None, position: 0 };
    let cuts = vec![cut(tensors[0]), cut(tensors[output])];
    let macs = nodes.iter().map(|node| node.macs(&tensors)).sum();
    let (kind, name) = (Kind::Block, "a.0".to_owned());
    let segment =
        Segment { kind, layer: None, name, from: 0, to: 1, tensors, nodes, input: 0, output, keeps: vec![], macs };
    let path = Path { name: "a".into(), segments: vec![0], corrections: vec![] };
    let (cut_extents, anchors) = (vec![extents[0], extents[output]], vec!["a".into()]);
    let stitched = Stitched { anchors, cuts, segments: vec![segment], paths: vec![path] };
    Calibrated { stitched, tensors: vec![extents], channels: vec![channels], cuts: cut_extents }
}

fn compile(calibrated: &Calibrated) -> (Quantized, Vec<u8>) {
    let quantized = quantize(calibrated, &pixels(), &[]).expect("quantised");
    let placed = place::place(quantized.clone()).expect("placed");
    let labels = Labels { family: "test".into(), classes: vec!["one".into()], packing: Packing::Rows };
    let bytes = emit(&placed, &labels, &CostModel::cortex_m4f(), &Measured::default()).expect("emitted");
    (quantized, bytes)
}

/// int8 inputs over the whole range, and the reals that they stand for.
fn inputs(seed: u64) -> Vec<(Vec<i8>, Vec<f32>)> {
    let (mut random, quant) = (Random(seed), of_pixels(&pixels()));
    let input = |_| {
        let integers: Vec<i8> = (0..INPUT.iter().product()).map(|_| (random.next() * 127.9) as i8).collect();
        let real = |&value: &i8| quant.scale * (f32::from(value) - f32::from(quant.zero_point));
        let reals = integers.iter().map(real).collect();
        (integers, reals)
    };
    (0..6).map(input).collect()
}

/// Most steps of the output by which the runtime differs from float.
fn worst(calibrated: &Calibrated, inputs: &[(Vec<i8>, Vec<f32>)]) -> i32 {
    let (quantized, bytes) = compile(calibrated);
    let image = Image::parse(&bytes).expect("a valid image");
    let segment = &calibrated.stitched.segments[0];
    let mut worst = 0;
    for (integers, reals) in inputs {
        let found = verify::agreed_outputs(&image, integers).expect("runs").swap_remove(ConfigId(0).index());
        let expected = float::run(&segment.nodes, &segment.tensors, 0, reals).swap_remove(segment.output);
        for (found, expected) in found.iter().zip(expected) {
            let expected = to_integer(expected, quantized.cuts[1].1);
            worst = worst.max((i32::from(*found) - i32::from(expected)).abs());
        }
    }
    worst
}

#[test]
fn every_op_is_within_its_roundings_of_float() {
    struct Case {
        name: &'static str,
        ops: Vec<(Op, Vec<usize>, [usize; 3])>,
        /// Half a step for every rounding on the way, rounded up.
        steps: i32,
    }
    let random = &mut Random(7);
    let relu6 = Clamp { min: 0.0, max: 6.0 };
    let slice = |origin, step, repeat, clamp| Op::Move { origin, step, repeat, clamp };
    let pool = |kind, window| Op::Pool { kind, window, clamp: Clamp::NONE };
    let strided = window(3, 2, [1, 0, 1, 1]);
    let point = window(1, 1, [0; 4]);
    let cases = [
        Case { name: "conv", ops: vec![(conv(random, [3, 5], strided, 1, Clamp::NONE), vec![0], [5, 4, 5])], steps: 1 },
        Case { name: "relu6", ops: vec![(conv(random, [3, 5], strided, 1, relu6), vec![0], [5, 4, 5])], steps: 1 },
        Case {
            name: "depthwise",
            ops: vec![(conv(random, [3, 3], strided, 3, Clamp::RELU), vec![0], [5, 4, 3])],
            steps: 1,
        },
        Case {
            name: "groups",
            ops: vec![(conv(random, [3, 6], strided, 3, Clamp::NONE), vec![0], [5, 4, 6])],
            steps: 1,
        },
        Case {
            name: "dense",
            ops: vec![{
                let whole = Window { kernel: [9, 8], stride: [1; 2], pad: [0; 4] };
                (conv(random, [3, 4], whole, 1, Clamp::NONE), vec![0], [1, 1, 4])
            }],
            steps: 1,
        },
        Case { name: "mean", ops: vec![(pool(PoolKind::Average, strided), vec![0], [5, 4, 3])], steps: 1 },
        Case { name: "x + x", ops: vec![(Op::Add { clamp: Clamp::RELU }, vec![0, 0], INPUT)], steps: 1 },
        Case {
            name: "add",
            ops: vec![
                (conv(random, [3, 3], point, 1, Clamp::NONE), vec![0], INPUT),
                (Op::Add { clamp: Clamp::NONE }, vec![1, 0], INPUT),
            ],
            steps: 2,
        },
        // From here on, moves lead from cut to cut and are rescaled.
        Case { name: "max", ops: vec![(pool(PoolKind::Max, strided), vec![0], [5, 4, 3])], steps: 1 },
        Case { name: "clamp", ops: vec![(slice([0; 3], [1; 2], [1; 2], relu6), vec![0], INPUT)], steps: 1 },
        Case {
            name: "pad and slice",
            ops: vec![(slice([-1, -2, 1], [2, 1], [1; 2], Clamp::RELU), vec![0], [6, 9, 4])],
            steps: 1,
        },
        Case {
            name: "resize",
            ops: vec![(slice([0; 3], [1; 2], [2; 2], Clamp::RELU), vec![0], [18, 16, 3])],
            steps: 1,
        },
        // The convolution's range is larger than the input's: tied to the input, it was cut off (144 steps).
        Case {
            name: "concat",
            ops: vec![
                (conv(random, [3, 5], point, 1, Clamp::NONE), vec![0], [9, 8, 5]),
                (Op::Concat { clamp: Clamp::RELU }, vec![1, 0], [9, 8, 8]),
            ],
            steps: 2,
        },
    ];
    for Case { name, ops, steps } in cases {
        let inputs = inputs(11);
        let reals: Vec<Vec<f32>> = inputs.iter().map(|input| input.1.clone()).collect();
        let found = worst(&calibrated(ops, &reals), &inputs);
        assert!(found <= steps, "{name}: {found} steps from float, {steps} allowed");
    }
}

/// All ops in one segment, with a concatenation, a resize and a slice between convolutions.
fn mixed(random: &mut Random) -> Vec<(Op, Vec<usize>, [usize; 3])> {
    let slice = |origin, step, repeat| Op::Move { origin, step, repeat, clamp: Clamp::NONE };
    let pool = |kind, window| Op::Pool { kind, window, clamp: Clamp::NONE };
    let same = window(3, 1, [1; 4]);
    let [map, half] = [[5, 4, 8], [2, 2, 8]];
    vec![
        (conv(random, [3, 8], window(3, 2, [1, 0, 1, 1]), 1, Clamp::RELU), vec![0], map),
        (conv(random, [8, 8], same, 8, Clamp { min: 0.0, max: 6.0 }), vec![1], map),
        (conv(random, [8, 8], window(1, 1, [0; 4]), 1, Clamp::NONE), vec![2], map),
        (Op::Add { clamp: Clamp::RELU }, vec![3, 1], map),
        (pool(PoolKind::Max, window(2, 2, [0; 4])), vec![4], half),
        (pool(PoolKind::Average, window(3, 2, [0, 1, 0, 0])), vec![4], half),
        (Op::Concat { clamp: Clamp::NONE }, vec![5, 6], [2, 2, 16]),
        (conv(random, [16, 8], same, 2, Clamp::RELU), vec![7], half),
        (slice([0; 3], [1; 2], [2; 2]), vec![8], [4, 4, 8]),
        (slice([-1, 0, 2], [2, 1], [1; 2]), vec![9], [2, 4, 8]),
        (
            conv(random, [8, 4], Window { kernel: [2, 4], stride: [1; 2], pad: [0; 4] }, 1, Clamp::NONE),
            vec![10],
            [1, 1, 4],
        ),
    ]
}

#[test]
fn a_network_of_all_ops_stays_near_float_and_compiles_to_the_same_bytes_twice() {
    let inputs = inputs(5);
    let reals: Vec<Vec<f32>> = inputs.iter().map(|input| input.1.clone()).collect();
    let network = calibrated(mixed(&mut Random(3)), &reals);
    // Eight roundings lie one after another.
    let found = worst(&network, &inputs);
    assert!(found <= 4, "{found} steps from float");
    assert_eq!(compile(&network).1, compile(&network).1);
}

#[test]
fn moves_rescale_only_between_cuts_of_different_scales() {
    let inputs = inputs(5);
    let reals: Vec<Vec<f32>> = inputs.iter().map(|input| input.1.clone()).collect();
    let clamp = Op::Move { origin: [0; 3], step: [1; 2], repeat: [1; 2], clamp: Clamp::RELU };
    let kinds = |ops: Vec<(Op, Vec<usize>, [usize; 3])>| -> Vec<OpKind> {
        let (quantized, _) = compile(&calibrated(ops, &reals));
        quantized.segments[0].ops.iter().map(|op| op.record.kind).collect()
    };
    assert_eq!(kinds(vec![(clamp.clone(), vec![0], INPUT)]), [OpKind::Rescale, OpKind::Move]);
    let dense = conv(&mut Random(1), [3, 3], window(1, 1, [0; 4]), 1, Clamp::NONE);
    assert_eq!(kinds(vec![(clamp, vec![0], INPUT), (dense, vec![1], INPUT)]), [OpKind::Move, OpKind::Conv]);
}

#[test]
fn a_channel_that_is_switched_off_keeps_its_bias() {
    let inputs = inputs(5);
    let reals: Vec<Vec<f32>> = inputs.iter().map(|input| input.1.clone()).collect();
    let mut op = conv(&mut Random(1), [3, 4], window(1, 1, [0; 4]), 1, Clamp::NONE);
    if let Op::Conv { weights, bias, .. } = &mut op {
        weights.index_axis_mut(ndarray::Axis(0), 0).fill(0.0);
        weights.index_axis_mut(ndarray::Axis(0), 1).fill(1e-20);
        (bias[0], bias[1]) = (1.5, -1.25);
    }
    let found = worst(&calibrated(vec![(op, vec![0], [9, 8, 4])], &reals), &inputs);
    assert!(found <= 1, "{found} steps from float");
}

#[test]
fn fixed_point_is_exact_to_30_bits_and_refuses_what_does_not_fit() {
    for factor in [1.0, 0.5, 0.999_999_999, 1e-3, 1e-8, 1.0 / 3.0, 300.0, 1e6] {
        let (multiplier, shift) = fixed_point(factor, "n").expect("fits");
        let back = f64::from(multiplier) / 2f64.powi(shift.into());
        assert!((back / factor - 1.0).abs() < 2f64.powi(-30), "{factor}: {multiplier} >> {shift}");
        assert!(multiplier >= 1 << 30, "{factor}: {multiplier} >> {shift}");
    }
    assert_eq!(fixed_point(0.0, "n").expect("fits"), (0, 62));
    assert!(fixed_point(1e-18, "n").expect("fits").0 < 1 << 30, "too small for 31 bits, and not an error");
    for factor in [2f64.powi(31), f64::INFINITY, f64::NAN, -1.0] {
        let error = fixed_point(factor, "layer7").expect_err("does not fit").to_string();
        assert!(error.contains("layer7"), "{error}");
    }
}

#[test]
fn an_addition_refuses_operands_that_its_factors_cannot_hold() {
    let quant = |scale| Quant { scale, zero_point: 3, element: plan::Element::Int8 };
    let mut record = plan::Op::EMPTY;
    addition(&mut record, [quant(0.1), quant(0.05)], quant(0.12), "n").expect("fits");
    assert!(record.factors[0] > 16_000 && record.constant.unsigned_abs() <= 1 << 30, "{record:?}");
    let error = addition(&mut record, [quant(1.0), quant(1e-6)], quant(1e-6), "sum3").expect_err("does not fit");
    assert!(error.to_string().contains("sum3"), "{error}");
}

#[test]
fn every_pixel_value_has_an_integer_of_its_own_place() {
    let (pixels, quant) = (pixels(), of_pixels(&pixels()));
    for (channel, table) in preprocess(&pixels, quant).iter().enumerate() {
        for (value, &integer) in table.iter().enumerate() {
            let real = (value as f32 / 255.0 - pixels.mean[channel]) / pixels.std[channel];
            let back = quant.scale * (f32::from(integer) - f32::from(quant.zero_point));
            assert!((back - real).abs() <= quant.scale, "channel {channel}, pixel {value}: {real} became {back}");
        }
    }
}

#[test]
fn attention_with_keys_and_values_of_two_maps_is_refused_by_name() {
    let (_, values): (Vec<_>, Vec<_>) = inputs(1).into_iter().unzip();
    let same = conv(&mut Random(1), [3, 3], window(1, 1, [0; 4]), 1, Clamp::NONE);
    let ops = vec![(same, vec![0], INPUT), (attention(1), vec![0, 0, 1], [9, 8, 1])];
    let error = quantize(&calibrated(ops, &values), &pixels(), &[]).expect_err("refused").to_string();
    assert_eq!(error, "quantize: node `node1`: attention with keys and values in two maps does not fit the image");
}

/// Heads of one channel, in windows of 3x4 with a bias.
fn attention(heads: usize) -> Op {
    let part = |first| Heads { first, per_head: 1, width: 1 };
    Op::Attention(Box::new(Attention {
        heads,
        query: part(0),
        key: part(0),
        value: part(0),
        query_window: [3, 4],
        key_window: [3, 4],
        scale: 0.8,
        bias: (0..heads * 144).map(|index| (index % 7) as f32 * 0.2).collect(),
        mask: vec![],
    }))
}

#[test]
fn every_op_of_a_transformer_is_within_its_roundings_of_float() {
    let random = &mut Random(17);
    let point = window(1, 1, [0; 4]);
    let dense = |random: &mut Random, channels| conv(random, channels, point, 1, Clamp::NONE);
    let norm_of = |channels: usize, epsilon: f32| Op::LayerNorm {
        factor: (0..channels).map(|channel| 0.5 + channel as f32 * 0.1).collect(),
        offset: (0..channels).map(|channel| channel as f32 * 0.1 - 0.3).collect(),
        epsilon,
    };
    let norm = |channels: usize| norm_of(channels, 1e-5);
    // A clamp is of 8 bits; where it leaves nearly nothing, a norm would magnify their rounding.
    let gentle = || norm_of(8, 1.0);
    let clamped = |random: &mut Random| conv(random, [3, 8], point, 1, Clamp::RELU);
    let gelu = Op::Curve { function: Function::gelu() };
    let ramp = |count: usize| (0..count).map(|index| (index % 11) as f32 * 0.1 - 0.5).collect::<Vec<f32>>();
    let wide = [9, 8, 8];
    let cases = [
        ("a curve", vec![(gelu.clone(), vec![0], INPUT)], 1),
        // A step of the convolution is up to 1.13 times as long behind the curve.
        ("a fused curve", vec![(dense(random, [3, 8]), vec![0], wide), (gelu.clone(), vec![1], wide)], 2),
        ("a roll", vec![(Op::Roll { by: [4, 7] }, vec![0], INPUT)], 1),
        ("a token", vec![(Op::Prepend { tokens: ramp(6) }, vec![0], [1, 74, 3])], 1),
        ("an offset", vec![(Op::Offset { values: ramp(216) }, vec![0], INPUT)], 1),
        ("a norm", vec![(dense(random, [3, 8]), vec![0], wide), (norm(8), vec![1], wide)], 1),
        ("a norm behind a clamp", vec![(clamped(random), vec![0], wide), (gentle(), vec![1], wide)], 3),
        (
            "a norm behind a clamped sum",
            vec![
                (dense(random, [3, 8]), vec![0], wide),
                (Op::Add { clamp: Clamp::RELU }, vec![1, 1], wide),
                (gentle(), vec![2], wide),
            ],
            3,
        ),
        (
            "attention",
            vec![(dense(random, [3, 8]), vec![0], wide), (attention(8), vec![1, 1, 1], wide)],
            // The scores, up to 8 bits of exponent, magnify half a step of queries and keys.
            4,
        ),
        (
            "a residual of two norms",
            vec![
                (dense(random, [3, 8]), vec![0], wide),
                (Op::Offset { values: ramp(576) }, vec![1], wide),
                (norm(8), vec![2], wide),
                (dense(random, [8, 8]), vec![3], wide),
                (Op::Add { clamp: Clamp::NONE }, vec![2, 4], wide),
                (norm(8), vec![5], wide),
            ],
            3,
        ),
    ];
    for (name, ops, steps) in cases {
        let inputs = inputs(23);
        let reals: Vec<Vec<f32>> = inputs.iter().map(|input| input.1.clone()).collect();
        let found = worst(&calibrated(ops, &reals), &inputs);
        assert!(found <= steps, "{name}: {found} steps from float, {steps} allowed");
    }
}

#[test]
fn a_tensor_of_16_bits_is_nearer_to_float_and_a_name_that_is_not_there_is_refused() {
    let inputs = inputs(31);
    let reals: Vec<Vec<f32>> = inputs.iter().map(|input| input.1.clone()).collect();
    let random = &mut Random(5);
    let ops = vec![
        (conv(random, [3, 8], window(1, 1, [0; 4]), 1, Clamp::NONE), vec![0], [9, 8, 8]),
        (Op::Add { clamp: Clamp::NONE }, vec![1, 1], [9, 8, 8]),
    ];
    let network = calibrated(ops, &reals);
    let picture: Vec<u8> = (0..216).map(|index| (index * 7 % 251) as u8).collect();
    let noise = |asked: &[String]| -> Result<f64, Error> {
        let placed = place::place(quantize(&network, &pixels(), asked)?)?;
        let labels = Labels { family: "test".into(), classes: vec!["one".into()], packing: Packing::Rows };
        let bytes = emit(&placed, &labels, &CostModel::cortex_m4f(), &Measured::default())?;
        let found = layers::layers(&network, &placed.quantized, &bytes, 0, &pixels(), std::slice::from_ref(&picture))?;
        assert_eq!((found.len(), &found[0].name[..]), (2, "a.0:node0"));
        Ok(found[0].ratio)
    };
    let (narrow, wide) = (noise(&[]).expect("int8"), noise(&["a.0:node0".into()]).expect("int16"));
    // Pixels are rounded too, so 16 bits of the result are not worth all of their 48 decibels.
    assert!(narrow > 30.0 && wide > narrow + 2.0, "{narrow} dB in int8, {wide} dB in int16");
    let error = noise(&["a.0:node7".into()]).expect_err("refused").to_string();
    assert!(error.contains("no tensor is called `a.0:node7`"), "{error}");
}
