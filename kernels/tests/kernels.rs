//! Every instruction set present equals the reference, bit for bit.

use kernels::cases::{self, Case, Failure, Memory, layers};
use kernels::{
    Attention, Conv, Element, Heads, KernelError, LayerNorm, Level, Packing, Requant, Rescale, Roll, Shape, Window,
    arch,
};

fn run(level: Level, case: &Case, memory: &mut Memory) -> Result<(), Failure> {
    kernels::with_isa!(level, |isa| cases::run(isa, case, memory))
}

/// A visitor that runs each case on every level of this machine.
fn on_every_level(label: &str, visit: impl FnOnce(&mut dyn FnMut(&Case))) {
    let mut memory = Box::new(Memory::new());
    let names: Vec<_> = Level::available().map(Level::name).collect();
    println!("instruction sets: {}", names.join(" "));
    let mut count = 0;
    visit(&mut |case| {
        count += 1;
        for level in Level::available() {
            assert_eq!(run(level, case, &mut memory), Ok(()), "{}, {label}, case {count}: {case:?}", level.name());
        }
    });
    assert!(count > 0);
    println!("{count} cases");
}

#[test]
fn every_level_equals_the_reference_at_every_boundary() {
    on_every_level("table", |visit| cases::table(visit));
}

#[test]
fn every_level_equals_the_reference_on_random_convolutions() {
    let number =
        |name: &str, otherwise| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let (seed, count) = (number("SEED", 20_261_124), number("CASES", 600));
    println!("SEED={seed} CASES={count}");
    on_every_level(&format!("SEED={seed} CASES={count}"), |visit| cases::random(seed, count, visit));
}

/// The body of the fuzz target on bytes from a seed.
#[test]
fn every_level_equals_the_reference_on_any_bytes() {
    let mut memory = Box::new(Memory::new());
    let mut state = 20_261_125u64;
    let mut fit = 0;
    for _ in 0..3_000 {
        let bytes = [0; 64].map(|_| {
            // Knuth's linear congruence; the high byte is the good one.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        });
        fit += u32::from(cases::run_any(&bytes, &mut memory));
    }
    assert!(fit > 2_000, "{fit} of 3000 fit into the memory");
}

/// The figures of a device mean something only for right outputs: it compares with these hashes.
#[test]
fn layers_have_the_outputs_of_the_reference() {
    let mut memory = Box::new(layers::LargeMemory::new());
    let mut wrong = vec![];
    for layer in layers::LAYERS.iter().chain(&layers::DEIT) {
        let expected = layers::expected(layer, &mut memory).expect("the memory is enough");
        if layer.expected != expected {
            wrong.push(format!("{}: {expected:#010x}", layer.name));
        }
        for level in Level::available() {
            for packing in [Packing::Rows, Packing::Blocks] {
                let found =
                    kernels::with_isa!(level, |isa| layers::run(isa, layer, packing, &mut memory, |work| work()));
                assert_eq!(found, Ok(((), expected)), "{}, {packing:?}: {}", level.name(), layer.name);
            }
        }
    }
    assert!(wrong.is_empty(), "the table has other hashes for:\n{}", wrong.join("\n"));
}

/// A convolution with the padding that keeps a side.
#[derive(Debug)]
struct Large {
    sides: [u16; 2],
    channels: u16,
    outputs: u16,
    kernel: u8,
    stride: u8,
    groups: u16,
    shift: u8,
    extreme: bool,
}

/// Some instruction sets work through a map in bands, and through weights in blocks of channels.
#[test]
fn every_level_equals_scalar_on_maps_larger_than_the_case_memory() {
    let paint = |len: usize| (0..len as u32).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect::<Vec<_>>();
    let (sides, channels, outputs) = ([41, 39], 64, 24);
    let common = Large { sides, channels, outputs, kernel: 3, stride: 1, groups: 1, shift: 42, extreme: false };
    let cases = [
        Large { sides: [80, 37], channels: 48, outputs: 9, kernel: 5, stride: 2, ..common },
        Large { sides: [60, 61], channels: 34, outputs: 32, groups: 2, ..common },
        Large { sides: [64, 64], channels: 33, outputs: 40, kernel: 1, shift: 31, ..common },
        Large { sides: [90, 90], outputs: 16, kernel: 1, stride: 2, ..common },
        Large { sides: [13, 11], channels: 512, outputs: 80, ..common },
        Large { sides: [60, 61], channels: 78, outputs: 34, groups: 2, ..common },
        Large { sides: [9, 9], channels: 1024, outputs: 16, shift: 30, ..common },
        Large { sides: [5, 7], channels: 1024, outputs: 16, shift: 50, extreme: true, ..common },
        Large { sides: [28, 28], channels: 100, outputs: 40, shift: 46, extreme: true, ..common },
        Large { sides: [4, 5], channels: 1024, outputs: 16, kernel: 5, shift: 30, ..common },
        common,
    ];
    for case in &cases {
        let &Large { sides: [height, width], channels, outputs, kernel, stride, groups, shift, extreme } = case;
        let size = |side: u16| (side - 1) / u16::from(stride) + 1;
        let input = Shape { height, width, channels };
        let output = Shape { height: size(height), width: size(width), channels: outputs };
        let row = (usize::from(kernel).pow(2) * usize::from(channels / groups)).next_multiple_of(4);
        // The largest sums are those of nothing but -128.
        let bytes = |len| if extreme { vec![i8::MIN.cast_unsigned(); len] } else { paint(len) };
        let (weights, values) = (bytes(row * usize::from(outputs)), bytes(input.len()));
        let values: Vec<i8> = values.into_iter().map(u8::cast_signed).collect();
        let words = |value: i32| value.to_le_bytes().repeat(outputs.into());
        let (bias, multiplier) = (words(-1234), words(if shift < 33 { 1 } else { 1_800_000_000 }));
        let shift = vec![shift; outputs.into()];
        let requant =
            Requant { bias: &bias, multiplier: &multiplier, shift: &shift, zero_point: 5, min: -100, max: 120 };
        let window = Window { kernel: [kernel; 2], stride: [stride; 2], pad: [kernel / 2; 4] };
        let in_blocks = groups == 1 && outputs.is_multiple_of(16) && (u16::from(kernel) * channels).is_multiple_of(4);
        // Noise is as good a block. Vectors of 64 bytes may lie in lines of the cache, or across them.
        let mut aligned = vec![0; weights.len() + 128];
        let line = aligned.as_ptr().align_offset(64);
        let runs = [(Packing::Rows, 0), (Packing::Blocks, line), (Packing::Blocks, line + 4)];
        let elements = [Element::Int8, Element::Int16];
        let runs = runs.into_iter().filter(|&(packing, _)| packing == Packing::Rows || in_blocks);
        for ((packing, start), to) in runs.flat_map(|run| elements.map(|to| (run, to))) {
            let place = start..start + weights.len();
            aligned[place.clone()].copy_from_slice(&weights);
            let (weights, curve) = (&aligned[place], None);
            let op = Conv { input, output, window, groups, input_zero: 3, weights, packing, requant, to, curve };
            let mut scratch = vec![0; kernels::conv_scratch(window.kernel, channels / groups, output.len())];
            let mut run = |level| {
                let mut found = vec![0; output.len() * to.bytes()];
                let result =
                    kernels::with_isa!(level, |isa| kernels::conv(isa, &op, &values, &mut found, &mut scratch));
                assert_eq!(result, Ok(()), "{case:?}");
                found
            };
            let expected = run(Level::Scalar);
            for level in Level::available() {
                assert!(run(level) == expected, "{}, {packing:?}, {to:?}: {case:?}", level.name());
            }
        }
    }
}

#[test]
fn wrong_lengths_are_errors() {
    let shape = Shape { height: 2, width: 2, channels: 4 };
    let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
    let requant = Requant { bias: &[0; 16], multiplier: &[0; 16], shift: &[1; 4], zero_point: 0, min: -128, max: 127 };
    let (to, curve, packing, weights) = (Element::Int8, None, Packing::Rows, &[0; 16]);
    let op =
        Conv { input: shape, output: shape, window, groups: 1, input_zero: 0, weights, packing, requant, to, curve };
    let run = |op: &Conv<'_>, input: usize, output: usize| {
        kernels::conv(arch::Scalar, op, &vec![0; input], &mut vec![0; output], &mut [])
    };
    assert_eq!(run(&op, 16, 16), Ok(()));
    assert_eq!(run(&op, 15, 16), Err(KernelError::Input));
    assert_eq!(run(&op, 16, 17), Err(KernelError::Output));
    assert_eq!(run(&Conv { weights: &[0; 12], ..op }, 16, 16), Err(KernelError::Weights));
    assert_eq!(run(&Conv { requant: Requant { shift: &[1; 3], ..requant }, ..op }, 16, 16), Err(KernelError::Weights));
    for shift in [0, 63, 255] {
        let requant = Requant { shift: &[1, 62, 1, shift], ..requant };
        assert_eq!(run(&Conv { requant, ..op }, 16, 16), Err(KernelError::Weights));
    }
    assert_eq!(run(&Conv { groups: 3, ..op }, 16, 16), Err(KernelError::Geometry));
    assert_eq!(run(&Conv { packing: Packing::Blocks, ..op }, 16, 16), Err(KernelError::Geometry));
    assert_eq!(run(&Conv { groups: 2, weights: &[0; 16], ..op }, 16, 16), Err(KernelError::Scratch));
}

/// The image parser bounds geometry; whatever comes past it must still end in a result, never in a panic.
#[test]
fn no_geometry_panics() {
    let sizes = [0, 1, 3, 200, 255];
    for kernel in sizes {
        for stride in sizes {
            for pad in sizes {
                for groups in [0, 1, 4] {
                    any_geometry(kernel, stride, pad, groups);
                }
            }
        }
    }
    let most = Shape { height: u16::MAX, width: u16::MAX, channels: u16::MAX };
    assert_eq!(kernels::depthwise_scratch(u16::MAX), 0);
    assert!(!most.is_empty() && kernels::conv_scratch([255; 2], u16::MAX, usize::MAX) > 0);
}

fn any_geometry(kernel: u8, stride: u8, pad: u8, groups: u16) {
    let shape = |height, width| Shape { height, width, channels: 4 };
    let (input, output) = (shape(3, 2), shape(2, 5));
    let window = Window { kernel: [kernel, 3], stride: [stride, 1], pad: [pad, 1, 0, 0] };
    let requant = Requant { bias: &[0; 16], multiplier: &[1; 16], shift: &[62; 4], zero_point: 0, min: 5, max: -5 };
    let taps = usize::from(kernel) * 3;
    let mut scratch = vec![0; kernels::conv_scratch(window.kernel, 4, 10)];
    for weights in [taps * 4, (taps * 4).next_multiple_of(4) * 4, taps.next_multiple_of(4) * 4] {
        let weights = vec![1; weights];
        let (to, curve, packing) = (Element::Int8, None, Packing::Rows);
        let op = Conv { input, output, window, groups, input_zero: 1, weights: &weights, packing, requant, to, curve };
        let _ = kernels::conv(arch::Scalar, &op, &[1; 24], &mut [0; 40], &mut scratch);
        let _ = kernels::depthwise(arch::Scalar, &op, &[1; 24], &mut [0; 40], &mut []);
    }
    for kind in [kernels::PoolKind::Average, kernels::PoolKind::Max] {
        let (multiplier, shift, zero_point) = (i32::MAX, 62, 0);
        let op =
            kernels::Pool { kind, input, output, window, input_zero: 0, multiplier, shift, zero_point, min: 1, max: 0 };
        assert_eq!(kernels::pool(arch::Scalar, &op, &[1; 24], &mut [0; 40]), Ok(()));
    }
}

#[test]
fn attentions_that_do_not_fit_are_errors() {
    let map = |height, width| Shape { height, width, channels: 12 };
    let heads = |first| Heads { first, per_head: 2, width: 2 };
    let op = Attention {
        query_map: map(2, 4),
        key_map: map(2, 4),
        heads: 2,
        query: heads(0),
        key: heads(4),
        value: heads(8),
        query_window: [2, 2],
        key_window: [2, 2],
        logit_multiplier: 1 << 30,
        logit_shift: 33,
        bias: &[],
        mask: &[],
        multiplier: 1 << 30,
        shift: 45,
        zero_point: 0,
        min: -128,
        max: 127,
    };
    let scratch = kernels::attention_scratch(4, 2);
    let run = |op: &Attention<'_>, [query, key, output, scratch]: [usize; 4]| {
        kernels::attention(
            arch::Scalar,
            op,
            &vec![1; query],
            &vec![1; key],
            &mut vec![0; output],
            &mut vec![0; scratch],
        )
    };
    let lens = [96, 96, 32, scratch];
    assert_eq!(run(&op, lens), Ok(()));
    assert_eq!(run(&op, [95, 96, 32, scratch]), Err(KernelError::Input));
    assert_eq!(run(&op, [96, 97, 32, scratch]), Err(KernelError::Input));
    assert_eq!(run(&op, [96, 96, 31, scratch]), Err(KernelError::Output));
    assert_eq!(run(&op, [96, 96, 32, scratch - 1]), Err(KernelError::Scratch));
    assert_eq!(run(&Attention { bias: &[0; 64], mask: &[0; 64], ..op }, lens), Ok(()));
    assert_eq!(run(&Attention { bias: &[0; 62], ..op }, lens), Err(KernelError::Weights));
    assert_eq!(run(&Attention { mask: &[0; 66], ..op }, lens), Err(KernelError::Weights));
    for shift in [0, 63, 255] {
        assert_eq!(run(&Attention { shift, ..op }, lens), Err(KernelError::Weights));
        assert_eq!(run(&Attention { logit_shift: shift, ..op }, lens), Err(KernelError::Weights));
    }
    let mut refused = vec![
        Attention { heads: 0, ..op },
        Attention { heads: 3, ..op },
        Attention { heads: u16::MAX, ..op },
        Attention { query: Heads { width: 0, ..op.query }, key: Heads { width: 0, ..op.key }, ..op },
        Attention { value: Heads { width: 0, ..op.value }, ..op },
        Attention { value: heads(9), ..op },
        Attention { value: Heads { per_head: u16::MAX, ..op.value }, ..op },
        Attention { key: Heads { width: 3, ..op.key }, ..op },
        Attention { query_map: map(0, 0), key_map: map(0, 0), ..op },
        // 4096 keys.
        Attention { query_map: map(64, 64), key_map: map(64, 64), query_window: [64; 2], key_window: [64; 2], ..op },
    ];
    for side in [0, 3, u16::MAX] {
        refused.push(Attention { query_window: [side, 2], ..op });
        refused.push(Attention { query_window: [2, side], ..op });
        refused.push(Attention { key_window: [side, 2], ..op });
        refused.push(Attention { key_window: [2, side], ..op });
    }
    refused.push(Attention { key_window: [1, 2], ..op });
    for op in refused {
        assert_eq!(run(&op, lens), Err(KernelError::Geometry), "{op:?}");
    }
}

#[test]
fn transformer_operations_check_their_lengths() {
    let isa = arch::Scalar;
    let op = LayerNorm { channels: 4, factor: &[1; 8], factor_bits: 15, offset: &[1; 16], epsilon: 1, min: -9, max: 9 };
    let run = |op: &LayerNorm<'_>, input, output| kernels::layer_norm(isa, op, &vec![3; input], &mut vec![0; output]);
    assert_eq!(run(&op, 16, 8), Ok(()));
    for (input, output) in [(0, 0), (15, 8), (12, 6)] {
        assert_eq!(run(&op, input, output), Err(KernelError::Input));
    }
    assert_eq!(run(&op, 16, 9), Err(KernelError::Output));
    for channels in [0, 1, 2049, u16::MAX] {
        assert_eq!(run(&LayerNorm { channels, ..op }, 16, 8), Err(KernelError::Geometry));
    }
    for op in [
        LayerNorm { factor_bits: 16, ..op },
        LayerNorm { epsilon: (1 << 62) + 1, ..op },
        LayerNorm { factor: &[1; 7], ..op },
        LayerNorm { offset: &[1; 20], ..op },
    ] {
        assert_eq!(run(&op, 16, 8), Err(KernelError::Weights));
    }
    let weights = |keys, logits, weights| kernels::softmax(isa, keys, &mut vec![5; logits], &mut vec![0; weights]);
    assert_eq!(weights(3, 24, 12), Ok(()));
    assert_eq!(weights(0, 24, 12), Err(KernelError::Geometry));
    assert_eq!(weights(2049, 4 * 2049, 2 * 2049), Err(KernelError::Geometry));
    assert_eq!(weights(3, 20, 10), Err(KernelError::Input));
    assert_eq!(weights(3, 24, 14), Err(KernelError::Output));
    let op = Roll { shape: Shape { height: 2, width: 3, channels: 2 }, by: [7, 7] };
    assert_eq!(kernels::roll(&op, &[1; 12], &mut [0; 12]), Ok(()));
    assert_eq!(kernels::roll(&op, &[1; 11], &mut [0; 11]), Err(KernelError::Input));
    assert_eq!(kernels::roll(&op, &[1; 12], &mut [0; 11]), Err(KernelError::Output));
    let nothing = Shape { height: 2, width: 0, channels: 2 };
    assert_eq!(kernels::roll(&Roll { shape: nothing, ..op }, &[], &mut []), Err(KernelError::Input));
    assert_eq!(kernels::prepend(&[1; 3], &[2; 2], &mut [0; 6]), Err(KernelError::Output));
    assert_eq!(kernels::curve(&[0; 256], &[2; 2], &mut [0; 3]), Err(KernelError::Output));
    let requant = Requant { bias: &[0; 8], multiplier: &[0; 8], shift: &[1; 2], zero_point: 0, min: -128, max: 127 };
    let (from, to) = (Element::Int16, Element::Int8);
    let op = Rescale { channels: 2, from, to, requant };
    let run = |op: &Rescale<'_>, input, output| kernels::rescale_tensor(isa, op, &vec![3; input], &mut vec![0; output]);
    assert_eq!(run(&op, 8, 4), Ok(()));
    assert_eq!(run(&op, 6, 3), Err(KernelError::Input));
    assert_eq!(run(&op, 8, 5), Err(KernelError::Output));
    assert_eq!(run(&Rescale { to: Element::Int16, ..op }, 8, 9), Err(KernelError::Output));
    assert_eq!(run(&Rescale { channels: 0, ..op }, 8, 4), Err(KernelError::Geometry));
    assert_eq!(run(&Rescale { channels: 1, ..op }, 8, 4), Err(KernelError::Weights));
}
