//! Import, simplify, family description and image sets from the outside: what is refused says why, and what is
//! accepted computes what the judge computes.

use std::fs;
use std::path::{Path, PathBuf};

use stitch::error::Error;
use stitch::float_judge::Judge;
use stitch::images::ImageSet;
use stitch::{family, float, import, simplify};
use support::onnx::Attribute::{self, Float, Int, Ints, Text};
use support::onnx::{Message, integers, model, node, noise, tensor};

const MAP: [i64; 4] = [1, 3, 4, 4];

fn weights() -> Message {
    tensor("w", &[2, 3, 3, 3], &noise(54, 1))
}

fn conv(attributes: &[(&str, Attribute)]) -> Message {
    node("Conv", &["x", "w"], "y", attributes)
}

/// Checks that a model is refused as unsupported, by the name of its node, and that the text has `part`.
fn refused(bytes: &[u8], op: &str, part: &str) {
    match import::import("tiny", bytes) {
        Err(error @ Error::Unsupported { .. }) => {
            let text = error.to_string();
            for part in ["tiny", &format!("the_{op}"), part] {
                assert!(text.contains(part), "`{part}` is not in: {text}");
            }
        }
        other => panic!("{op} ({part}): {other:?}"),
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let one = |tensors: &[Message], node: Message| model(&MAP, tensors, &[node]);
    refused(&one(&[], node("Softmax", &["x"], "y", &[])), "Softmax", "Softmax");
    refused(&one(&[weights()], conv(&[("dilations", Ints(&[2, 2]))])), "Conv", "dilations");
    refused(&one(&[weights()], conv(&[("group", Int(2))])), "Conv", "groups");
    refused(&one(&[weights()], conv(&[("pads", Ints(&[i64::MAX, 0, 0, 0]))])), "Conv", "pads");
    refused(&one(&[weights()], conv(&[("strides", Ints(&[0, 1]))])), "Conv", "strides");
    refused(&one(&[weights()], conv(&[("strides", Ints(&[1, 256]))])), "Conv", "from 1 to 255");
    let huge = node("Pad", &["x", "p"], "y", &[]);
    let pads = [integers("p", &[0, 0, 0, 0, 0, 65_000, 65_000, 65_000])];
    refused(&one(&pads, huge), "Pad", "fewer than 2147483648 elements");
    let lists = [("s", vec![0, 0]), ("e", vec![1]), ("a", vec![1, 2])].map(|(name, values)| integers(name, &values));
    refused(&one(&lists, node("Slice", &["x", "s", "e", "a"], "y", &[])), "Slice", "[2, 1, 2, 2]");
    refused(&one(&[weights()], conv(&[("auto_pad", Text("LEFT"))])), "Conv", "auto_pad");
    let pool = |name, value| node("AveragePool", &["x"], "y", &[("kernel_shape", Ints(&[2, 2])), (name, value)]);
    refused(&one(&[], pool("ceil_mode", Int(1))), "AveragePool", "ceil_mode");
    refused(&one(&[], pool("pads", Ints(&[1, 1, 1, 1]))), "AveragePool", "count_include_pad");
    refused(&one(&[], node("ReduceMean", &["x"], "y", &[("axes", Ints(&[1]))])), "ReduceMean", "axes");
    refused(&one(&[], node("Clip", &["x"], "y", &[("min", Float(f32::NAN))])), "Clip", "min");
    refused(&one(&[], node("Upsample", &["x"], "y", &[("mode", Text("linear"))])), "Upsample", "linear");
    refused(&one(&[], node("Squeeze", &["x"], "y", &[("axes", Ints(&[1]))])), "Squeeze", "reshape");
    refused(&one(&[], node("Relu", &["missing"], "y", &[])), "Relu", "missing");
    refused(&one(&[], node("Relu", &[], "y", &[])), "Relu", "missing");
    refused(&one(&[], node("Relu", &["x"], "x", &[])), "Relu", "`x`, which exists already");
}

#[test]
fn every_operator_of_the_list_is_known() {
    for op in import::OPERATORS {
        // Without inputs or attributes each is refused, but not because nobody knows it.
        if let Err(error) = import::import("tiny", &model(&MAP, &[], &[node(op, &["x"], "y", &[])])) {
            assert!(!error.to_string().contains("supported operators are"), "{op}: {error}");
        }
    }
}

#[test]
fn a_constant_that_onnx_spreads_over_columns_is_not_taken_for_channels() {
    let add = |values: &[f32]| {
        let tensors = [tensor("b", &[values.len() as i64], values)];
        model(&[1, 4, 4, 4], &tensors, &[node("Add", &["x", "b"], "y", &[])])
    };
    judged("columns", &add(&noise(4, 2)));
    refused(&add(&noise(3, 2)), "Add", "a constant of shape [3] for a map of [1, 4, 4, 4]");
}

#[test]
fn functions_of_one_map_compute_what_the_judge_computes() {
    let parts = [tensor("three", &[], &[3.0]), tensor("six", &[], &[6.0]), tensor("zero", &[], &[0.0])];
    let nodes = [
        node("Add", &["x", "three"], "a", &[]),
        node("Clip", &["a", "zero", "six"], "b", &[]),
        node("Mul", &["x", "b"], "c", &[]),
        node("Div", &["c", "six"], "y", &[]),
    ];
    let bytes = model(&MAP, &parts, &nodes);
    judged("hard swish in parts", &bytes);
    let graph = import::import("parts", &bytes).and_then(simplify::simplify).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((graph.nodes.len(), graph.nodes[0].op.name()), (1, "hardswish"), "{graph}");
    for op in ["Sigmoid", "Tanh", "Erf", "HardSwish", "HardSigmoid"] {
        judged(op, &model(&MAP, &[], &[node(op, &["x"], "y", &[])]));
    }
    let table = tensor("t", &[3, 1, 1], &[0.5, -2.0, 4.0]);
    for op in ["Add", "Sub", "Mul", "Div"] {
        judged(op, &model(&MAP, std::slice::from_ref(&table), &[node(op, &["x", "t"], "y", &[])]));
    }
    for op in ["Add", "Sub", "Mul"] {
        judged(op, &model(&MAP, std::slice::from_ref(&table), &[node(op, &["t", "x"], "y", &[])]));
    }
    let other = [node("Relu", &["x"], "r", &[]), node("Mul", &["x", "r"], "y", &[])];
    refused(&model(&MAP, &[], &other), "Mul", "only the sum");
    // Squeeze and excite: a factor per channel that depends on the image.
    let excite = [
        node("GlobalAveragePool", &["x"], "mean", &[]),
        node("Sigmoid", &["mean"], "gate", &[]),
        node("Mul", &["x", "gate"], "y", &[]),
    ];
    refused(&model(&MAP, &[], &excite), "Mul", "of two different maps only the sum");
    let power = [tensor("p", &[], &[0.5])];
    refused(&model(&MAP, &power, &[node("Pow", &["x", "p"], "y", &[])]), "Pow", "only the powers 2 and 3");
}

/// `x · (1 + tanh(√(2/π) · (x + 0.044715·x³))) / 2` as the dynamo exporter writes it (`pow`), or the older one.
fn gelu_by_tanh(pow: bool) -> Vec<u8> {
    let numbers = [("three", 3.0), ("small", 0.044_715), ("root", 0.797_884_6), ("one", 1.0), ("half", 0.5)];
    let numbers = numbers.map(|(name, value)| tensor(name, &[], &[value]));
    let cube = if pow {
        vec![node("Pow", &["x", "three"], "cube", &[])]
    } else {
        vec![node("Mul", &["x", "x"], "square", &[]), node("Mul", &["x", "square"], "cube", &[])]
    };
    let rest = [
        node("Mul", &["small", "cube"], "a", &[]),
        node("Add", &["x", "a"], "b", &[]),
        node("Mul", &["root", "b"], "c", &[]),
        node("Tanh", &["c"], "d", &[]),
        node("Add", &["one", "d"], "e", &[]),
        node("Mul", &["x", "e"], "f", &[]),
        node("Mul", &["half", "f"], "y", &[]),
    ];
    model(&MAP, &numbers, &[&cube[..], &rest].concat())
}

#[test]
fn gelu_by_tanh_is_one_curve_however_it_is_written() {
    let one = model(&MAP, &[], &[node("Gelu", &["x"], "y", &[("approximate", Text("tanh"))])]);
    let image = noise(48, 5);
    let outputs = [gelu_by_tanh(true), gelu_by_tanh(false), one].map(|bytes| {
        let graph = import::import("it", &bytes).and_then(simplify::simplify).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((graph.nodes.len(), graph.nodes[0].op.name()), (1, "gelu_tanh"), "{graph}");
        float::output(&graph, &image)
    });
    judged("powers", &gelu_by_tanh(true));
    judged("products", &gelu_by_tanh(false));
    for (a, b) in outputs[0].iter().zip(&outputs[1]).chain(outputs[0].iter().zip(&outputs[2])) {
        assert!((a - b).abs() <= 1e-6, "{a} {b}");
    }
    let exact = [node("Gelu", &["x"], "y", &[])];
    let exact = import::import("it", &model(&MAP, &[], &exact)).and_then(simplify::simplify);
    let exact = exact.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((exact.nodes.len(), exact.nodes[0].op.name()), (1, "gelu"));
    let other = [node("Gelu", &["x"], "y", &[("approximate", Text("quick"))])];
    refused(&model(&MAP, &[], &other), "Gelu", "approximate = quick");
}

/// A layer norm over tokens in its parts. The square is a power or a product; `axes` is an attribute or, from opset 18 on,
/// an input.
fn norm_in_parts(power: bool, axes_are_input: bool, table: bool) -> Vec<u8> {
    let tensors = [
        integers("shape", &[1, 3, 16]),
        integers("back", &[1, 4, 4, 3]),
        integers("last", &[-1]),
        tensor("two", &[], &[2.0]),
        tensor("epsilon", &[], &[1e-3]),
        tensor("w", &[3], &[0.5, -2.0, 1.5]),
        tensor("b", &[3], &[0.25, 0.0, -1.0]),
    ];
    let mean = |from: &str, to: &str| match axes_are_input {
        true => node("ReduceMean", &[from, "last"], to, &[]),
        false => node("ReduceMean", &[from], to, &[("axes", Ints(&[-1]))]),
    };
    let square = if power { node("Pow", &["c", "two"], "s", &[]) } else { node("Mul", &["c", "c"], "s", &[]) };
    let mut nodes = vec![
        node("Reshape", &["x", "shape"], "flat", &[]),
        node("Transpose", &["flat"], "t", &[("perm", Ints(&[0, 2, 1]))]),
        mean("t", "m"),
        node("Sub", &["t", "m"], "c", &[]),
        square,
        mean("s", "v"),
        node("Add", &["v", "epsilon"], "e", &[]),
        node("Sqrt", &["e"], "d", &[]),
        node("Div", &["c", "d"], "n", &[]),
    ];
    if table {
        nodes.extend([node("Mul", &["n", "w"], "p", &[]), node("Add", &["p", "b"], "q", &[])]);
    }
    nodes.push(node("Reshape", &[if table { "q" } else { "n" }, "back"], "y", &[]));
    model(&MAP, &tensors, &nodes)
}

#[test]
fn a_layer_norm_in_parts_is_a_layer_norm() {
    for (power, axes_are_input, table) in [(true, false, true), (false, true, true), (true, true, false)] {
        let bytes = norm_in_parts(power, axes_are_input, table);
        let graph = import::import("it", &bytes).and_then(simplify::simplify).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((graph.nodes.len(), graph.nodes[0].op.name()), (1, "layernorm"), "{graph}");
        // tract knows axes as an attribute only.
        let judge = Judge::of_file(&norm_in_parts(power, false, table), [4, 4, 3]).expect("a model");
        let image = noise(48, 3);
        let expected = judge.output(&image).expect("it runs");
        for (found, expected) in float::output(&graph, &image).iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-5, "{found} instead of {expected}");
        }
    }
    // A mean over channels that stays one.
    let parts = [node("Transpose", &["x"], "t", &[("perm", Ints(&[0, 2, 3, 1]))])];
    let mean = node("ReduceMean", &["t"], "m", &[("axes", Ints(&[-1]))]);
    let other = node("Add", &["t", "m"], "y", &[]);
    refused(&model(&MAP, &[], &[parts[0].clone(), mean, other]), "Add", "not part of a layer norm");
}

#[test]
fn a_gemm_with_too_few_biases_is_refused() {
    let tensors = [tensor("w", &[48, 4], &noise(192, 1)), tensor("b", &[2], &[1.0; 2])];
    let nodes = [node("Flatten", &["x"], "f", &[]), node("Gemm", &["f", "w", "b"], "y", &[])];
    refused(&model(&MAP, &tensors, &nodes), "Gemm", "2 biases");
}

#[test]
fn weights_that_are_not_finite_are_named() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = noise(54, 1);
        values[7] = value;
        match import::import("tiny", &model(&MAP, &[tensor("w", &[2, 3, 3, 3], &values)], &[conv(&[])])) {
            Err(Error::NotFinite { anchor, tensor, index, .. }) => {
                assert_eq!((&*anchor, &*tensor, index), ("tiny", "w", 7))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn bytes_that_are_no_model_are_refused_without_a_panic() {
    let whole = model(&MAP, &[weights()], &[conv(&[])]);
    assert!(import::import("tiny", &whole).is_ok());
    for end in 0..whole.len() {
        let _ = import::import("tiny", &whole[..end]);
    }
    for place in 0..whole.len() {
        for flip in [1, 0x40, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[place] ^= flip;
            let _ = import::import("tiny", &bytes);
        }
    }
    assert!(import::import("tiny", b"").is_err());
    assert!(import::import("tiny", &model(&[1, 3, 0, 4], &[weights()], &[conv(&[])])).is_err());
    assert!(import::import("tiny", &model(&[2, 3, 4, 4], &[weights()], &[conv(&[])])).is_err());
    // Products of these dimensions do not fit 64 bits.
    let huge = tensor("w", &[1 << 32, 1 << 32, 1, 1], &[]);
    assert!(import::import("tiny", &model(&MAP, &[huge], &[conv(&[])])).is_err());
}

/// Checks that a model computes what the judge computes, on two images. Maps compare channels first, as ONNX has them.
fn judged(name: &str, bytes: &[u8]) {
    let graph = import::import(name, bytes).and_then(simplify::simplify).unwrap_or_else(|error| panic!("{error}"));
    let shape = graph.tensors[graph.input];
    let size: usize = shape.iter().product();
    let images = noise(2 * size, 5);
    let judge = Judge::of_file(bytes, shape).unwrap_or_else(|error| panic!("{name}: {error}"));
    for image in images.chunks(size) {
        let expected = judge.output(image).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = float::output(&graph, image);
        let [height, width, channels] = graph.tensors[graph.output];
        assert_eq!(found.len(), expected.len(), "{name}");
        let largest = expected.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
        for (index, expected) in expected.iter().enumerate() {
            let (c, place) = (index / (height * width), index % (height * width));
            let found = found[place * channels + c];
            assert!((found - expected).abs() <= 1e-4 * largest, "{name}, {index}: {found} instead of {expected}");
        }
    }
}

#[test]
fn operators_compute_what_the_judge_computes() {
    let one = |name: &str, tensors: &[Message], node: Message| judged(name, &model(&MAP, tensors, &[node]));
    one("conv", &[weights()], conv(&[("pads", Ints(&[0, 1, 2, 1])), ("strides", Ints(&[2, 1]))]));
    for same in ["SAME_UPPER", "SAME_LOWER"] {
        one(same, &[weights()], conv(&[("auto_pad", Text(same)), ("strides", Ints(&[2, 2]))]));
    }
    let depthwise = tensor("w", &[6, 1, 3, 3], &noise(54, 1));
    one("groups", &[depthwise], conv(&[("group", Int(3))]));
    one("global mean", &[], node("GlobalAveragePool", &["x"], "y", &[]));
    let pool = [("kernel_shape", Ints(&[2, 2])), ("pads", Ints(&[1, 0, 0, 1])), ("count_include_pad", Int(1))];
    one("mean", &[], node("AveragePool", &["x"], "y", &pool));
    one("max", &[], node("MaxPool", &["x"], "y", &pool[..2]));
    one("mean of axes", &[], node("ReduceMean", &["x"], "y", &[("axes", Ints(&[-1, -2])), ("keepdims", Int(0))]));
    one("bias", &[tensor("b", &[3, 1, 1], &noise(3, 2))], node("Add", &["x", "b"], "y", &[]));
    let bounds = [tensor("low", &[], &[-0.25]), tensor("high", &[], &[0.5])];
    one("clip", &bounds, node("Clip", &["x", "low", "high"], "y", &[]));
    let pads = [integers("p", &[0, 1, 0, 2, 0, 0, 1, 0])];
    one("pad", &pads, node("Pad", &["x", "p"], "y", &[]));
    let slices = ["s", "e", "a", "t"].iter().zip([[1, -3], [3, 9], [1, 2], [1, 2]]);
    let slices: Vec<_> = slices.map(|(name, values)| integers(name, &values)).collect();
    one("slice", &slices, node("Slice", &["x", "s", "e", "a", "t"], "y", &[]));
    one("concat", &[], node("Concat", &["x", "x"], "y", &[("axis", Int(1))]));
    let scales = [tensor("k", &[4], &[1.0, 1.0, 2.0, 3.0])];
    let asymmetric = [("coordinate_transformation_mode", Text("asymmetric")), ("nearest_mode", Text("floor"))];
    one("resize", &scales, node("Resize", &["x", "", "k"], "y", &asymmetric));
    one("resize, default", &scales, node("Resize", &["x", "", "k"], "y", &[]));
}

#[test]
fn dense_layers_read_features_in_the_order_of_onnx() {
    let tensors = [tensor("w", &[5, 48], &noise(240, 1)), tensor("b", &[5], &noise(5, 2))];
    let attributes = [("transB", Int(1)), ("alpha", Float(0.5)), ("beta", Float(2.0))];
    let nodes = [node("Flatten", &["x"], "f", &[]), node("Gemm", &["f", "w", "b"], "y", &attributes)];
    judged("gemm", &model(&MAP, &tensors, &nodes));
    let tensors = [integers("s", &[1, -1]), tensor("w", &[48, 5], &noise(240, 1)), tensor("b", &[5], &noise(5, 2))];
    let nodes = [
        node("Reshape", &["x", "s"], "f", &[]),
        node("MatMul", &["f", "w"], "m", &[]),
        node("Add", &["b", "m"], "y", &[]),
    ];
    let bytes = model(&MAP, &tensors, &nodes);
    judged("matmul", &bytes);
    let graph = import::import("matmul", &bytes).and_then(simplify::simplify).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(graph.nodes.len(), 1, "{graph}");
}

#[test]
fn batch_norm_and_relu_fold_into_the_convolution() {
    let table =
        |name, seed| tensor(name, &[2], &noise(2, seed).iter().map(|value| value.abs() + 0.5).collect::<Vec<_>>());
    let tensors = [weights(), table("g", 2), table("b", 3), table("m", 4), table("v", 5)];
    let nodes = [
        node("Conv", &["x", "w"], "c", &[]),
        node("BatchNormalization", &["c", "g", "b", "m", "v"], "n", &[("epsilon", Float(1e-3))]),
        node("Relu", &["n"], "y", &[]),
    ];
    let bytes = model(&MAP, &tensors, &nodes);
    judged("batch norm", &bytes);
    let graph =
        import::import("batch norm", &bytes).and_then(simplify::simplify).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(graph.nodes.len(), 1, "{graph}");
}

/// The networks of the repository that are here.
fn family_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/cifar-cnn/family.toml")
}

#[test]
fn the_networks_of_the_repository_compute_what_the_judge_computes() {
    let spec = family::read(&family_file()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(spec.labels.len(), 10);
    assert!(spec.directory.ends_with("models/cifar-cnn"));
    for anchor in &spec.anchors {
        judged(&anchor.name, &anchor.read().unwrap_or_else(|error| panic!("{error}")));
    }
}

/// A folder of this test alone.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the folder of the tests can be written");
    folder
}

#[test]
fn a_family_description_with_a_fault_is_refused() {
    let good = fs::read_to_string(family_file()).expect("the description can be read");
    let path = folder("families").join("family.toml");
    let faults = [
        ("std = [0.2470", "std = [0.0", "std"),
        ("mean = [0.4914, ", "mean = [", "mean"),
        ("height = 32", "height = 0", "sides"),
        ("height = 32", "hight = 32", "hight"),
        ("std = [0.2470", "std = [1e-40", "std"),
        ("labels = [", "labels = [] # ", "label"),
        ("direction =", "ridge = -1.0\ndirection =", "ridge"),
        ("name = \"medium\"", "name = \"small\"", "anchor 2 is called \"small\""),
        ("name = \"medium\"", "name = \"\"", "one line"),
    ];
    for (from, to, part) in faults {
        fs::write(&path, good.replacen(from, to, 1)).expect("the folder of the tests can be written");
        let error = family::read(&path).expect_err(part).to_string();
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    assert!(matches!(family::read(Path::new("missing.toml")), Err(Error::File { .. })));
}

#[test]
fn sheets_are_cut_into_tiles_and_faults_are_named() {
    let folder = folder("sheets");
    let sheet = |name: &str, columns: u32, rows: u32, start: u8| {
        let file = fs::File::create(folder.join(name)).expect("the folder of the tests can be written");
        let mut encoder = png::Encoder::new(file, columns, rows);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let pixels: Vec<u8> = (0..columns * rows * 3).map(|index| start.wrapping_add(index as u8)).collect();
        encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels)).expect("a picture is written");
    };
    let labels =
        |text: &str| fs::write(folder.join("labels.txt"), text).expect("the folder of the tests can be written");
    let read = || ImageSet::read(&folder, [1, 2, 3], 3);
    let fault = |part: &str| {
        let error = read().expect_err(part).to_string();
        assert!(error.contains(part), "`{part}` is not in: {error}");
    };
    fault("no PNG");
    sheet("b.png", 2, 1, 100);
    sheet("a.png", 4, 2, 0);
    assert!(matches!(read(), Err(Error::File { .. })));
    labels("0\n1\n2\n1\n0\n");
    let set = read().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (set.len(), set.image(1), set.image(4)),
        (5, &[6, 7, 8, 9, 10, 11][..], &[100, 101, 102, 103, 104, 105][..])
    );
    assert_eq!(set.normalised(0, &[0.0, 0.5, 0.0], &[1.0, 0.5, 2.0])[..2], [0.0, (1.0 / 255.0 - 0.5) / 0.5]);
    assert_eq!(set.first(2).labels, [0, 1]);
    labels("0\n1\n");
    assert_eq!(read().unwrap_or_else(|error| panic!("{error}")).pixels.len(), 12);
    labels("0\n1\n0\n0\n0\n0\n");
    fault("6 labels for 5");
    labels("0\n3\n");
    fault("line 2");
    labels("0\nx\n");
    fault("line 2");
    labels("");
    fault("empty");
    labels("0\n");
    sheet("c.png", 3, 1, 0);
    fault("multiple");
    assert!(matches!(ImageSet::read(Path::new("missing"), [1, 2, 3], 3), Err(Error::File { .. })));
}
