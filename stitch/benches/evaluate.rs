//! All configs of the three published spaces, each shared start once against every config alone: the same bytes, as many
//! blocks as the tree has, and the time.
//!
//! The families are made in code: depths as published, widths in the published proportions, a block of two 1x1
//! convolutions (the MLP of a transformer) around which the input is added. Weights are noise, as time does not depend on
//! them. Ways take turns within a round and one thread runs them, so a busy moment hits both; the median of the rounds counts.
//!
//! `cargo bench -p stitch --bench evaluate -- [ROUNDS]`

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use kernels::{Level, with_isa};
use ndarray::Array4;
use plan::{ConfigId, Image, SegmentId};
use runtime::Engine;
use stitch::cost::CostModel;
use stitch::emit::{Labels, Measured, emit};
use stitch::evaluate::{FloatPaths, Way, answers, tree_of};
use stitch::family::Packing;
use stitch::graph::{Clamp, Node, Op, PoolKind, Window};
use stitch::network::{Cut, Kind, Path, Segment, Stitched};
use stitch::quantize::{Pixels, quantize};
use stitch::{calibrate, place};
use support::routes::{self, Part, Route, parts};

const CLASSES: usize = 10;

/// An anchor: blocks, width and side of the map of each stage.
struct Anchor {
    stages: Vec<(usize, usize, usize)>,
}

/// A published space and what must hold for it.
struct Space {
    name: &'static str,
    anchors: Vec<Anchor>,
    routes: Vec<Route>,
    /// Blocks that the tree runs, and that all configs alone run.
    blocks: [usize; 2],
    /// Most that shared starts may take of the time of every config alone.
    bar: f64,
}

fn spaces() -> [Space; 3] {
    let plain = |depth, width| Anchor { stages: vec![(depth, width, 7)] };
    let swin = |anchor: usize, width: usize| Anchor {
        stages: (0..4).map(|stage| (routes::SWIN[anchor][stage], width << stage, 16 >> stage)).collect(),
    };
    [
        Space {
            name: "DeiT-Ti/S/B",
            anchors: vec![plain(12, 48), plain(12, 96), plain(12, 192)],
            routes: routes::deit(),
            blocks: [478, 920],
            bar: 0.85,
        },
        Space {
            name: "Swin-Ti/S/B",
            anchors: vec![swin(0, 24), swin(1, 24), swin(2, 32)],
            routes: routes::swin(),
            blocks: [522, 881],
            bar: 0.72,
        },
        Space {
            name: "SN-Netv2 S-L",
            anchors: vec![plain(12, 48), plain(24, 128)],
            routes: routes::two_way(),
            blocks: [894, 2412],
            bar: 0.45,
        },
    ]
}

/// Numbers without a pattern, from −1 to 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// A convolution whose window walks without overlap.
    fn conv(&mut self, from: usize, to: usize, side: usize, gain: f32, clamp: Clamp) -> Op {
        let gain = gain / ((side * side * from) as f32).sqrt();
        let weights = Array4::from_shape_simple_fn([to, side, side, from], || self.next() * gain);
        let bias = (0..to).map(|_| self.next() * 0.1).collect();
        Op::Conv {
            weights,
            bias,
            window: Window { kernel: [side; 2], stride: [side; 2], pad: [0; 4] },
            groups: 1,
            clamp,
        }
    }
}

/// Nodes in a row; each reads the tensor before, an addition also the one that `skip` names.
struct Row {
    tensors: Vec<[usize; 3]>,
    nodes: Vec<Node>,
}

impl Row {
    fn push(&mut self, op: Op, shape: [usize; 3], skip: Option<usize>) -> usize {
        let output = self.tensors.len();
        self.tensors.push(shape);
        let inputs = [output - 1].into_iter().chain(skip).collect();
        self.nodes.push(Node { name: format!("node {output}"), op, inputs, output });
        output
    }

    fn segment(self, kind: Kind, name: String, from: usize, to: usize) -> Segment {
        let macs = self.nodes.iter().map(|node| node.macs(&self.tensors)).sum();
        let output = self.tensors.len() - 1;
        Segment {
            kind,
            layer: None,
            name,
            from,
            to,
            tensors: self.tensors,
            nodes: self.nodes,
            input: 0,
            output,
            keeps: vec![],
            macs,
        }
    }
}

/// The family of a space: per anchor a stem, its blocks and a head, and a stitch wherever a route has one.
fn family(space: &Space) -> Stitched {
    let noise = &mut Noise(7);
    let side = 2 * space.anchors[0].stages[0].2;
    let cut = |shape, anchor, position| Cut { shape, anchor, position };
    let cuts = vec![cut([side, side, 3], None, 0), cut([1, 1, CLASSES], None, 1)];
    let mut stitched = Stitched { anchors: vec![], cuts, segments: vec![], paths: vec![] };
    // Number of the cut before each block and behind the last, and of the segments.
    let (mut entries, mut stems, mut heads, mut numbers) = (vec![], vec![], vec![], BTreeMap::new());
    for (number, anchor) in space.anchors.iter().enumerate() {
        stitched.anchors.push(format!("a{number}"));
        let blocks: Vec<(usize, usize)> =
            anchor.stages.iter().flat_map(|&(depth, width, side)| (0..depth).map(move |_| (width, side))).collect();
        let first = stitched.cuts.len();
        entries.push(first);
        // A block of a new stage begins with the step down to its map.
        let shapes = [blocks[0]].into_iter().chain(blocks.iter().copied());
        stitched.cuts.extend(shapes.zip(1..).map(|((width, side), at)| cut([side, side, width], Some(number), at)));
        stems.push(stitched.segments.len());
        let mut row = Row { tensors: vec![[side, side, 3]], nodes: vec![] };
        let (width, inner) = blocks[0];
        row.push(noise.conv(3, width, 2, 1.0, Clamp::NONE), [inner, inner, width], None);
        stitched.segments.push(row.segment(Kind::Block, format!("a{number} stem"), 0, first));
        for (block, &(width, inner)) in blocks.iter().enumerate() {
            numbers.insert(Part::Block(number, block), stitched.segments.len());
            let start = stitched.cuts[first + block].shape;
            let mut row = Row { tensors: vec![start], nodes: vec![] };
            let map = |width| [inner, inner, width];
            let skip = if start == map(width) {
                0
            } else {
                row.push(noise.conv(start[2], width, start[0] / inner, 1.0, Clamp::NONE), map(width), None)
            };
            row.push(noise.conv(width, 4 * width, 1, 1.0, Clamp::RELU), map(4 * width), None);
            row.push(noise.conv(4 * width, width, 1, 0.5, Clamp::NONE), map(width), None);
            row.push(Op::Add { clamp: Clamp::NONE }, map(width), Some(skip));
            let name = format!("a{number}.{block}");
            stitched.segments.push(row.segment(Kind::Block, name, first + block, first + block + 1));
        }
        heads.push(stitched.segments.len());
        let (width, inner) = blocks[blocks.len() - 1];
        let mut row = Row { tensors: vec![[inner, inner, width]], nodes: vec![] };
        let window = Window { kernel: [inner; 2], stride: [inner; 2], pad: [0; 4] };
        row.push(Op::Pool { kind: PoolKind::Average, window, clamp: Clamp::NONE }, [1, 1, width], None);
        row.push(noise.conv(width, CLASSES, 1, 1.0, Clamp::NONE), [1, 1, CLASSES], None);
        stitched.segments.push(row.segment(Kind::Block, format!("a{number} head"), first + blocks.len(), 1));
    }
    for (number, route) in space.routes.iter().enumerate() {
        let [front, back] = [route[0].anchor, route[route.len() - 1].anchor];
        let mut segments = vec![stems[front]];
        for part in parts(route) {
            if let Part::Stitch([front, a, back, b]) = part
                && !numbers.contains_key(&part)
            {
                numbers.insert(part, stitched.segments.len());
                let (from, to) = (entries[front] + a + 1, entries[back] + b);
                let [start, end] = [from, to].map(|cut| stitched.cuts[cut].shape);
                let mut row = Row { tensors: vec![start], nodes: vec![] };
                row.push(noise.conv(start[2], end[2], 1, 1.0, Clamp::NONE), end, None);
                stitched.segments.push(row.segment(Kind::Stitch, format!("a{front}.{a}>a{back}.{b}"), from, to));
            }
            segments.push(numbers[&part]);
        }
        segments.push(heads[back]);
        stitched.paths.push(Path { name: format!("c{number}"), segments, corrections: vec![] });
    }
    stitched
}

/// Times of shared starts over times of every config alone; `run(true)` shares.
fn ratio<T: PartialEq>(
    rounds: usize,
    mut run: impl FnMut(bool) -> Result<T, Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let mut timed = |shared| -> Result<(T, f64), Box<dyn Error>> {
        let started = Instant::now();
        let found = black_box(run(shared)?);
        Ok((found, started.elapsed().as_secs_f64()))
    };
    let mut ratios = vec![];
    for round in 0..rounds {
        let first = timed(round % 2 == 0)?;
        let second = timed(round % 2 == 1)?;
        if first.0 != second.0 {
            return Err("a config gives other bytes through shared starts than alone".into());
        }
        ratios.push(if round % 2 == 0 { first.1 / second.1 } else { second.1 / first.1 });
    }
    ratios.sort_by(f64::total_cmp);
    Ok(ratios[ratios.len() / 2])
}

fn measure(space: &Space, rounds: usize) -> Result<bool, Box<dyn Error>> {
    let stitched = family(space);
    let noise = &mut Noise(3);
    let [height, width, channels] = stitched.cuts[0].shape;
    let images: Vec<Vec<f32>> =
        (0..4).map(|_| (0..height * width * channels).map(|_| noise.next()).collect()).collect();
    let paths = FloatPaths::new(&stitched);
    let block = |path: usize, done: usize| {
        let segment = &stitched.segments[stitched.paths[path].segments[done]];
        segment.kind == Kind::Block && segment.from != 0 && segment.to != 1
    };
    let tree = paths.tree.steps.iter().filter(|step| block(step.path, step.done)).count();
    let lengths = stitched.paths.iter().map(|path| path.segments.len()).enumerate();
    let alone = lengths.map(|(path, length)| (0..length).filter(|&done| block(path, done)).count()).sum::<usize>();
    if [tree, alone] != space.blocks {
        return Err(format!("{}: {tree} of {alone} blocks, {:?} are expected", space.name, space.blocks).into());
    }
    let float = ratio(rounds, |shared| {
        let outputs = if shared {
            paths.outputs(&images[0])
        } else {
            (0..stitched.paths.len()).map(|path| paths.output(path, &images[0])).collect()
        };
        Ok(outputs.iter().flatten().map(|value| value.to_bits()).collect::<Vec<_>>())
    })?;
    let calibrated = calibrate::calibrate(stitched.clone(), &images, &|| ());
    let pixels = Pixels { mean: vec![0.5; 3], std: vec![0.5; 3] };
    let placed = place::place(quantize(&calibrated, &pixels, &[])?)?;
    let classes = (0..CLASSES).map(|class| class.to_string()).collect();
    let labels = Labels { family: space.name.into(), classes, packing: Packing::Rows };
    let bytes = emit(&placed, &labels, &CostModel::cortex_m4f(), &Measured::default())?;
    let image = Image::parse(&bytes)?;
    let tree_of_image = tree_of(&image);
    let steps = |step: &stitch::evaluate::tree::Step| {
        let path = image.path_segment(&image.config(ConfigId(step.path as u16)), step.done as u16);
        stitched.segments[SegmentId::index(path)].name.clone()
    };
    let of_float = paths
        .tree
        .steps
        .iter()
        .map(|step| stitched.segments[stitched.paths[step.path].segments[step.done]].name.clone());
    if !tree_of_image.steps.iter().map(steps).eq(of_float) {
        return Err(format!("{}: the image has another tree than the float paths", space.name).into());
    }
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let integers = with_isa!(Level::best(), |isa| {
        let mut engine = Engine::new(isa, image, &mut arena)?;
        ratio(rounds, |shared| {
            for (value, &pixel) in engine.input_mut().iter_mut().zip(&images[1]) {
                *value = (pixel * 127.0) as i8;
            }
            Ok(answers(&mut engine, if shared { Way::Shared(&tree_of_image) } else { Way::Alone })?.outputs)
        })
    })?;
    println!(
        "{:<14}{:>5} configs{tree:>6} of {alone:>5} blocks   integers {integers:.3}   float {float:.3}   at most {}",
        space.name,
        space.routes.len(),
        space.bar
    );
    Ok(integers <= space.bar && float <= space.bar)
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(7).max(1);
    println!("time of shared starts over each config alone, median of {rounds} rounds, {}", Level::best().name());
    let mut held = true;
    for space in spaces() {
        held &= measure(&space, rounds)?;
    }
    if held { Ok(()) } else { Err("a bar is not held".into()) }
}
