//! A valid image, however strange, runs without panic and to the same bytes on every instruction set.

use kernels::Isa;
use kernels::arch::Scalar;
use plan::layout::{MIX_BOXES, NO_TENSOR, POOL_BOXES};
use plan::{Config, ConfigId, Image, Op, OpId, OpKind, TargetId};
use runtime::policy::{Ahead, Estimate, Left, Memory, Policy, Route, Settings, shares};
use runtime::{Budget, Engine, Limit, Progress, RunError};

use crate::parse::reseal;

/// Largest arena that is lent. An image that needs more is left alone.
const ARENA_BYTES: u32 = 1 << 20;
/// Most multiply-accumulates and moves of one config, so that one case takes milliseconds.
const WORK: u64 = 1 << 22;
/// Most configs of one image that are run.
const CONFIGS: u16 = 16;
/// What fresh arenas hold. No output may depend on it.
const PAINT: [i8; 2] = [0, 0x55];

/// Parses `bytes`, with length and checksum put right if they start like an image, and runs every config on the
/// input of the self test.
pub fn run_any(bytes: &[u8]) {
    run(bytes);
    if let Some(sealed) = reseal(bytes) {
        run(&sealed);
    }
}

fn run(bytes: &[u8]) {
    let Ok(image) = Image::parse(bytes) else { return };
    let small = |id: &ConfigId| {
        let config = image.config(*id);
        config.arena_bytes <= ARENA_BYTES && work(&image, &config) <= WORK
    };
    let ids = (0..image.configs().min(CONFIGS)).map(ConfigId).filter(small);
    for (id, next) in ids.clone().zip(ids.cycle().skip(1)) {
        let config = image.config(id);
        let scalar = output(Scalar, image, id, config.arena_bytes, PAINT[0]);
        assert!(is_promised(&image, &scalar), "config {id:?} of a valid image: {scalar:?}");
        // A larger arena puts outputs elsewhere; what was in it does not matter.
        let roomy = output(Scalar, image, id, config.arena_bytes + 160, PAINT[1]);
        assert_eq!(scalar, roomy, "config {id:?}: the arena's size or content shows in the output");
        for level in kernels::Level::available() {
            let found = kernels::with_isa!(level, |isa| output(isa, image, id, config.arena_bytes, PAINT[1]));
            assert_eq!(scalar, found, "config {id:?}: {} differs from scalar", level.name());
        }
        budgeted(image, id);
        let switched = switched(image, id, next);
        assert!(is_promised(&image, &switched), "config {id:?}, then {next:?}: {switched:?}");
    }
}

/// Runs to the end; but what a kernel needs of scratch is its own affair, the format does not promise it.
fn is_promised<T>(image: &Image<'_>, result: &Result<T, RunError>) -> bool {
    match result {
        Ok(_) => true,
        Err(RunError::Kernel { op }) => lacks_scratch(image, &image.op(OpId(*op))),
        Err(_) => false,
    }
}

fn lacks_scratch(image: &Image<'_>, op: &Op) -> bool {
    let lent = if op.scratch.0 == NO_TENSOR { 0 } else { image.tensor(op.scratch).bytes() };
    let needed = match op.kind {
        OpKind::Conv => {
            let channels = image.tensor(op.input).shape[2].checked_div(op.groups);
            let [height, width, _] = image.tensor(op.output).shape.map(usize::from);
            channels.map_or(0, |channels| kernels::conv_scratch(op.kernel, channels, height * width))
        }
        OpKind::Attention => {
            let numbers = image.attention(op);
            kernels::attention_scratch(numbers.keys() as usize, numbers.query_width)
        }
        OpKind::Pool => {
            let inside = inside(image, op);
            let together = POOL_BOXES.min(image.meta().boxes.into());
            together * inside + kernels::conv_scratch([1; 2], inside as u16, together)
        }
        OpKind::Mix => {
            let numbers = image.mixing(op);
            let together = MIX_BOXES.min(image.meta().boxes.into());
            let [points_in, points_out, width] = [numbers.points_in, numbers.points_out, numbers.width];
            let matrix = usize::from(width) * usize::from(width) + usize::from(points_in) * usize::from(points_out);
            let layer = kernels::conv_scratch([1; 2], image.tensor(op.input).shape[2], together);
            let mixing = kernels::mix_scratch(points_in, points_out, width);
            2 * together * numbers.matrices() as usize + matrix + mixing.max(layer)
        }
        OpKind::Suppress => {
            let maps = op.operands().into_iter().filter(|id| id.0 != NO_TENSOR).map(|id| image.tensor(id));
            let cells: usize = maps.map(|map| usize::from(map.shape[0]) * usize::from(map.shape[1])).sum();
            kernels::suppress_scratch(cells * usize::from(image.meta().classes))
        }
        _ => 0,
    };
    lent < needed as u64
}

/// Values that are pooled of a box.
fn inside(image: &Image<'_>, op: &Op) -> usize {
    let bins = usize::from(image.generator(op).bins);
    bins * bins * usize::from(image.tensor(op.input2).shape[2])
}

/// A policy of any costs decides without a panic, and only for configs that share the path.
fn budgeted(image: Image<'_>, current: ConfigId) {
    let [segments, routes, ahead] = Memory::needed(&image);
    let mut owned = (vec![Estimate::default(); segments], vec![Route::EMPTY; routes], vec![Ahead::EMPTY; ahead]);
    let memory = Memory { segments: &mut owned.0, routes: &mut owned.1, ahead: &mut owned.2 };
    let target = TargetId(image.targets() - 1);
    let mut policy = Policy::new(&image, target, Settings::default(), memory).expect("the memory is of this image");
    let config = image.config(current);
    for amount in [0, image.ticks(&config), u64::from(u32::MAX), u64::MAX] {
        for limit in [Limit::hard(amount), Limit::soft(amount)] {
            let budget = Budget { time: Some(limit), energy: Some(limit), memory: None };
            let left = Left::of(&budget, image.meta().arena_bytes, 0, 0);
            assert!(policy.choose(&left).map_or(true, |id| id.0 < image.configs()));
            for done in 1..config.segments {
                let next = policy.reconsider(current, done, &left);
                assert!(shares(&image, &config, &image.config(next), done), "{next:?} does not share {done} segments");
            }
        }
        policy.learn(&image, image.path_segment(&config, 0), amount, Some(amount));
        policy.set_slowdown(amount as u32);
        policy.refresh(&image);
    }
}

/// Upper bound of the products and moves of a config.
fn work(image: &Image<'_>, config: &Config) -> u64 {
    let ops = image.path(config).flat_map(|segment| {
        let segment = image.segment(segment);
        (segment.first_op..segment.first_op + segment.ops).map(|op| image.op(OpId(op)))
    });
    ops.map(|op| {
        let each = match op.kind {
            OpKind::Conv | OpKind::Depthwise => u64::from(op.reduction(&image.tensor(op.input))),
            OpKind::Attention => {
                let numbers = image.attention(&op);
                u64::from(numbers.keys()) * u64::from(numbers.query_width.max(numbers.value_width))
            }
            OpKind::Pool => inside(image, &op) as u64,
            _ => u64::from(op.kernel[0]) * u64::from(op.kernel[1]),
        };
        image.tensor(op.output).bytes().saturating_mul(each.max(1))
    })
    .fold(0, u64::saturating_add)
}

/// Runs a config and tries at every cut to go on as another, and back. Returns where the run ended.
fn switched(image: Image<'_>, first: ConfigId, second: ConfigId) -> Result<ConfigId, RunError> {
    let bytes = [first, second].map(|id| image.config(id).arena_bytes).into_iter().max().unwrap_or_default();
    let mut arena = vec![PAINT[1]; bytes as usize];
    let mut engine = Engine::new(Scalar, image, &mut arena)?;
    engine.begin(first)?;
    while let Progress::Cut(cut) = engine.step()? {
        assert_eq!(engine.features().len() as u64, image.cut(cut).bytes());
        let other = if engine.config() == first { second } else { first };
        // Most paths share nothing; that is no error of the run.
        let before = engine.config();
        assert_eq!(engine.switch(other).map_or(before, |()| other), engine.config());
    }
    Ok(engine.config())
}

fn output<I: Isa>(isa: I, image: Image<'_>, id: ConfigId, arena_bytes: u32, paint: i8) -> Result<Vec<i8>, RunError> {
    let mut arena = vec![paint; arena_bytes as usize];
    let mut engine = Engine::new(isa, image, &mut arena)?;
    for (value, &byte) in engine.input_mut().iter_mut().zip(image.test_input()) {
        *value = byte as i8;
    }
    let output = engine.run_config(id).map(<[i8]>::to_vec)?;
    assert!(engine.class() < image.meta().classes.max(1), "a class that the image does not have");
    Ok(output)
}
