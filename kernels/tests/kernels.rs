//! Every instruction set present equals the reference, bit for bit.

use kernels::{Add, Conv, Isa, Level, Move, Pool, PoolKind, Requant, Shape, Window, arch, reference};

/// xorshift64*, so that a case can be repeated from the seed that a failure prints.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    fn bytes(&mut self, len: usize, extremes: bool) -> Vec<u8> {
        (0..len)
            .map(|_| if extremes { [0x80, 0x7f][self.below(2) as usize] } else { self.next() as u8 })
            .collect()
    }
}

fn signed(bytes: &[u8]) -> Vec<i8> {
    bytes.iter().map(|&byte| byte as i8).collect()
}

/// Runs `body` on every level of this machine.
fn on_every_level(mut body: impl FnMut(&dyn Fn(Job<'_>) -> Vec<i8>, &str)) {
    for level in Level::available() {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                let isa = arch::Avx2::new().expect("it is available");
                body(&|job| job.run(isa), level.name());
            }
            _ => body(&|job| job.run(arch::Scalar), level.name()),
        }
    }
}

enum Job<'a> {
    Conv(&'a Conv<'a>, bool, &'a [i8]),
    Add(&'a Add, &'a [i8], &'a [i8]),
    Pool(&'a Pool, &'a [i8]),
}

impl Job<'_> {
    fn run<I: Isa>(&self, isa: I) -> Vec<i8> {
        match *self {
            Job::Conv(op, depthwise, input) => {
                let mut out = vec![0x55; op.output.len()];
                let per_group = op.input.channels / op.groups;
                let mut scratch = vec![0x33; kernels::conv_scratch(op.window.kernel, per_group)];
                let run = if depthwise { kernels::depthwise } else { kernels::conv };
                run(isa, op, input, &mut out, &mut scratch).expect("lengths are right");
                out
            }
            Job::Add(op, a, b) => {
                let mut out = vec![0x55; a.len()];
                kernels::add(isa, op, a, b, &mut out).expect("lengths are right");
                out
            }
            Job::Pool(op, input) => {
                let mut out = vec![0x55; op.output.len()];
                kernels::pool(isa, op, input, &mut out).expect("lengths are right");
                out
            }
        }
    }
}

struct Case {
    input: [u16; 3],
    outputs: u16,
    kernel: [u8; 2],
    stride: [u8; 2],
    pad: [u8; 4],
    groups: u16,
    depthwise: bool,
    extremes: bool,
}

fn check_conv(case: &Case, random: &mut Random, label: &str) {
    let [height, width, channels] = case.input;
    let side = |side: u16, axis: usize| {
        let padded = side + u16::from(case.pad[axis]) + u16::from(case.pad[axis + 2]);
        (padded - u16::from(case.kernel[axis])) / u16::from(case.stride[axis]) + 1
    };
    let input = Shape { height, width, channels };
    let output = Shape { height: side(height, 0), width: side(width, 1), channels: case.outputs };
    let taps = usize::from(case.kernel[0]) * usize::from(case.kernel[1]) * usize::from(channels / case.groups);
    let outputs = usize::from(case.outputs);
    let weights = if case.depthwise {
        random.bytes(taps * outputs, case.extremes)
    } else {
        let mut rows = vec![];
        for _ in 0..outputs {
            let mut row = random.bytes(taps, case.extremes);
            row.resize(taps.next_multiple_of(4), 0);
            rows.extend(row);
        }
        rows
    };
    let words = |random: &mut Random, of: &dyn Fn(u64) -> i32| -> Vec<u8> {
        (0..outputs).flat_map(|_| of(random.next()).to_le_bytes()).collect()
    };
    let bias = words(random, &|value| value as i32 % 10_000);
    let multiplier = words(random, &|value| (1 << 30) + (value as i32 & 0x3fff_ffff));
    let shift: Vec<u8> = (0..outputs).map(|_| 36 + random.below(6) as u8).collect();
    let pixels = signed(&random.bytes(input.len(), case.extremes));
    let window = Window { kernel: case.kernel, stride: case.stride, pad: case.pad };
    let (min, max) = if random.below(2) == 0 { (-128, 127) } else { (-5, 100) };
    let requant = Requant { bias: &bias, multiplier: &multiplier, shift: &shift, zero_point: -7, min, max };
    let op = Conv { input, output, window, groups: case.groups, input_zero: 13, weights: &weights, requant };
    let mut expected = vec![0; output.len()];
    reference::conv(&op, case.depthwise, &pixels, &mut expected);
    on_every_level(|run, level| {
        assert_eq!(run(Job::Conv(&op, case.depthwise, &pixels)), expected, "{label}, {level}");
    });
}

#[test]
fn convolution_at_every_boundary() {
    let mut random = Random(1);
    let plain = |input, outputs, kernel, stride, pad| Case {
        input,
        outputs,
        kernel,
        stride,
        pad,
        groups: 1,
        depthwise: false,
        extremes: false,
    };
    for channels in [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33] {
        for outputs in [1, 3, 4, 5, 8] {
            let label = format!("{channels} to {outputs}");
            check_conv(&plain([5, 4, channels], outputs, [1, 1], [1, 1], [0; 4]), &mut random, &label);
            check_conv(&plain([5, 5, channels], outputs, [3, 3], [1, 1], [1; 4]), &mut random, &label);
        }
    }
    for side in 0..4 {
        let mut pad = [0; 4];
        pad[side] = 2;
        check_conv(&plain([7, 6, 5], 6, [3, 3], [2, 1], pad), &mut random, &format!("padding on side {side}"));
    }
    for kernel in [1, 2, 4, 5, 7] {
        for stride in [1, 2, 3] {
            let label = format!("kernel {kernel} stride {stride}");
            check_conv(&plain([9, 8, 6], 5, [kernel, kernel], [stride, stride], [kernel / 2; 4]), &mut random, &label);
        }
    }
    for groups in [2, 3, 6] {
        let mut case = plain([5, 5, 12], 18, [3, 3], [1, 1], [1; 4]);
        case.groups = groups;
        check_conv(&case, &mut random, &format!("{groups} groups"));
    }
    let mut case = plain([4, 4, 64], 8, [3, 3], [1, 1], [1; 4]);
    case.extremes = true;
    check_conv(&case, &mut random, "extremes");
}

#[test]
fn depthwise_at_every_boundary() {
    let mut random = Random(2);
    for channels in [1, 3, 15, 16, 17, 33] {
        for (stride, pad) in [([1, 1], [1, 1, 1, 1]), ([2, 2], [0, 1, 1, 0])] {
            let case = Case {
                input: [6, 7, channels],
                outputs: channels,
                kernel: [3, 3],
                stride,
                pad,
                groups: channels,
                depthwise: true,
                extremes: channels == 17,
            };
            check_conv(&case, &mut random, &format!("{channels} channels, stride {stride:?}"));
        }
    }
}

#[test]
fn random_convolutions() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_124);
    println!("SEED={seed}");
    let mut random = Random(seed);
    for number in 0..300 {
        let kernel = [1 + random.below(4) as u8, 1 + random.below(4) as u8];
        let pad = core::array::from_fn(|side| random.below(kernel[side % 2].into()) as u8);
        let groups = 1 + random.below(3) as u16;
        let case = Case {
            input: [4 + random.below(6) as u16, 4 + random.below(6) as u16, groups * (1 + random.below(20) as u16)],
            outputs: groups * (1 + random.below(10) as u16),
            kernel,
            stride: [1 + random.below(2) as u8, 1 + random.below(3) as u8],
            pad,
            groups,
            depthwise: false,
            extremes: random.below(8) == 0,
        };
        check_conv(&case, &mut random, &format!("SEED={seed}, case {number}"));
    }
}

#[test]
fn additions() {
    let mut random = Random(3);
    for len in [1, 15, 16, 17, 100] {
        let op = Add { multiplier: [20_000, -12_345], offset: 77_777, shift: 14, min: -128, max: 90 };
        let (a, b) = (signed(&random.bytes(len, false)), signed(&random.bytes(len, len == 17)));
        let mut expected = vec![0; len];
        reference::add(&op, &a, &b, &mut expected);
        on_every_level(|run, level| assert_eq!(run(Job::Add(&op, &a, &b)), expected, "{len}, {level}"));
    }
}

#[test]
fn pools() {
    let mut random = Random(4);
    for kind in [PoolKind::Average, PoolKind::Max] {
        for (kernel, stride, pad) in [([8, 8], [1, 1], [0; 4]), ([2, 2], [2, 2], [0; 4]), ([3, 3], [2, 2], [1, 0, 1, 2])] {
            let input = Shape { height: 8, width: 8, channels: 17 };
            let side = |axis: usize| (8 + pad[axis] + pad[axis + 2] - kernel[axis]) / stride[axis] + 1;
            let output = Shape { height: side(0).into(), width: side(1).into(), channels: 17 };
            let window = Window { kernel, stride, pad };
            let op = Pool {
                kind,
                input,
                output,
                window,
                input_zero: -128,
                multiplier: 1_500_000_000,
                shift: 36,
                zero_point: -20,
                min: -100,
                max: 120,
            };
            let pixels = signed(&random.bytes(input.len(), false));
            let mut expected = vec![0; output.len()];
            reference::pool(&op, &pixels, &mut expected);
            on_every_level(|run, level| assert_eq!(run(Job::Pool(&op, &pixels)), expected, "{op:?}, {level}"));
        }
    }
}

#[test]
fn moves() {
    let mut random = Random(5);
    let input = Shape { height: 6, width: 5, channels: 4 };
    let output = Shape { height: 7, width: 9, channels: 10 };
    for (origin, step, repeat) in [([0, 0, 0], [2, 2], [1, 1]), ([-1, -2, -3], [1, 1], [1, 1]), ([0, 0, 1], [1, 1], [2, 3])] {
        let op =
            Move { input, output, origin, step, repeat, first_channel: 2, channels: 7, fill: -9, min: -100, max: 100 };
        let pixels = signed(&random.bytes(input.len(), false));
        let (mut expected, mut found) = (vec![1; output.len()], vec![1; output.len()]);
        reference::move_tensor(&op, &pixels, &mut expected);
        kernels::move_tensor(&op, &pixels, &mut found).expect("lengths are right");
        assert_eq!(found, expected, "{op:?}");
    }
}

#[test]
fn wrong_lengths_are_errors() {
    let shape = Shape { height: 2, width: 2, channels: 4 };
    let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
    let requant = Requant { bias: &[0; 16], multiplier: &[0; 16], shift: &[1; 4], zero_point: 0, min: -128, max: 127 };
    let op = Conv { input: shape, output: shape, window, groups: 1, input_zero: 0, weights: &[0; 16], requant };
    let run = |op: &Conv<'_>, input: usize, output: usize| {
        kernels::conv(arch::Scalar, op, &vec![0; input], &mut vec![0; output], &mut [])
    };
    assert_eq!(run(&op, 16, 16), Ok(()));
    assert_eq!(run(&op, 15, 16), Err(kernels::KernelError::Input));
    assert_eq!(run(&op, 16, 17), Err(kernels::KernelError::Output));
    assert_eq!(run(&Conv { weights: &[0; 12], ..op }, 16, 16), Err(kernels::KernelError::Weights));
    assert_eq!(run(&Conv { groups: 3, ..op }, 16, 16), Err(kernels::KernelError::Geometry));
    assert_eq!(run(&Conv { groups: 2, weights: &[0; 16], ..op }, 16, 16), Err(kernels::KernelError::Scratch));
}
