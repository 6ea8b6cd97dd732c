//! The head's operations: golden integers, vectors of the Python model, and their distance from real arithmetic.

use kernels::{LayerNorm, arch, head, layer_norm, softmax};

/// `spec`: golden integers that another implementation gave.
#[test]
fn logarithms_and_powers_are_the_golden_ones() {
    assert_eq!([1, 3, 48, 960, 40_000].map(head::log2), [0, 6492, 22_876, 40_579, 62_618]);
    assert_eq!([0, 2048, 4096, 14_805, -1198].map(|z| head::exp2(z, 4)), [16, 23, 32, 196, 13]);
}

#[test]
fn functions_are_near_the_real_ones() {
    let mut most = [0f64; 4];
    let mut note = |which: usize, found: f64, exact: f64, limit: f64| {
        most[which] = most[which].max((found - exact).abs());
        assert!((found - exact).abs() < limit, "function {which}: {found} for {exact}");
    };
    for value in 0..=65_535u16 {
        let signed = value.cast_signed();
        note(0, head::sigmoid(signed).into(), 32_768.0 / (1.0 + (-f64::from(signed) / 4096.0).exp()), 1.3);
        let turn = f64::from(value) / 65_536.0 * std::f64::consts::TAU;
        note(1, head::sine(value).into(), 16_384.0 * turn.sin(), 1.0);
        note(1, head::cosine(value).into(), 16_384.0 * turn.cos(), 1.0);
        if signed > i16::MIN {
            assert_eq!(head::sigmoid(signed) + head::sigmoid(-signed), 32_768);
        }
        let integer = u64::from(value) + 1;
        for large in [integer, integer * integer, integer << 47] {
            note(2, head::log2(large).into(), 4096.0 * (large as f64).log2(), 1.5);
        }
        // 2^-2 to 2^14.
        let exponent = i32::from(value) - 8192;
        let exact = (f64::from(exponent) / 4096.0 + 8.0).exp2();
        let found = f64::from(head::exp2(exponent, 8));
        note(3, 0.0, ((found - exact).abs() - 0.5).max(0.0) / exact, 2f64.powi(-14));
    }
    println!("most: {most:?}");
}

#[test]
fn functions_take_every_value() {
    assert_eq!((head::log2(0), head::log2(u64::MAX)), (0, 64 * 4096));
    assert_eq!(head::exp2(i32::MIN, 15), 0);
    assert_eq!(
        (head::exp2(i32::MAX, 0), head::exp2(31 << 12, 0), head::exp2(30 << 12, 0)),
        (i32::MAX, i32::MAX, 1 << 30)
    );
    assert_eq!((head::sigmoid(i16::MIN), head::sigmoid(0), head::sigmoid(i16::MAX)), (11, 16_384, 32_757));
    assert_eq!([0, 0x4000, 0x8000, 0xc000].map(head::sine), [0, 16_384, 0, -16_384]);
}

/// Sides of 3 to 192 pixels survive the logarithm.
#[test]
fn sides_survive_their_logarithm() {
    for side in 3 * 16..=192 * 16 {
        assert_eq!(head::exp2(head::log2(side), 0), side as i32);
    }
}

/// The head shares softmax and layer normalisation with transformers. Theirs are other integers than the specification's
/// golden ones: at most one step of 2^-15 away, and the same bytes.
#[test]
fn shared_operations_are_near_the_golden_ones() {
    let weights = |logits: &[i32]| {
        let mut bytes: Vec<i8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).map(u8::cast_signed).collect();
        let mut out = vec![0; 2 * logits.len()];
        softmax(arch::Scalar, logits.len() as u16, &mut bytes, &mut out).unwrap();
        out.as_chunks()
            .0
            .iter()
            .map(|&pair: &[i8; 2]| i16::from_le_bytes(pair.map(i8::cast_unsigned)))
            .collect::<Vec<_>>()
    };
    // Golden logits are natural; ours are exponents of 2. Round as the golden ones do.
    for (logits, golden) in [
        (vec![512, 256, 0, -4096], vec![21_796i16, 8025, 2947, 0]),
        (vec![0; 5], vec![6554; 5]),
        (vec![100, -100, 700, 650, -3000, 699], vec![1061, 487, 11_070, 9110, 0, 11_040]),
    ] {
        let most = logits.iter().max().unwrap();
        let exponents: Vec<i32> = logits.iter().map(|logit| -(((most - logit) * 23_637 + 8192) >> 14)).collect();
        let found = weights(&exponents);
        assert!(found.iter().zip(&golden).all(|(a, b)| (a - b).abs() <= 1), "{found:?} for {golden:?}");
    }
    let values = [100i16, -50, 25, 300, -1200, 7, 0, 818];
    let row: Vec<i8> = values.iter().flat_map(|value| value.to_le_bytes()).map(u8::cast_signed).collect();
    let factor: Vec<u8> = [32i16 << 9; 8].iter().flat_map(|value| value.to_le_bytes()).collect();
    let offset: Vec<u8> = [32i32; 8].iter().flat_map(|value| value.to_le_bytes()).collect();
    let (channels, factor_bits, epsilon, min, max) = (8, 9, 0, -128, 127);
    let op = LayerNorm { channels, factor: &factor, factor_bits, offset: &offset, epsilon, min, max };
    let mut out = [0; 8];
    layer_norm(arch::Scalar, &op, &row, &mut out).unwrap();
    assert_eq!(out, [6, -3, 2, 18, -73, 0, 0, 50]);
}
