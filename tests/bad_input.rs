//! Everything that comes from outside and is wrong is refused with the exact sentence that a person needs.

use std::fs;
use std::path::{Path, PathBuf};

use kernels::arch::Scalar;
use plan::{ConfigId, Image, Rule, sample};
use runtime::{Engine, RunError};
use stitch::error::Error;
use stitch::evaluate::tally::{Shard, Tally};
use stitch::images::Sheets;
use stitch::pipeline::{self, Options, Quiet, Scoring, Stage};
use stitch::{family, pipeline::Compiled};
use support::onnx::{Attribute, Message, model, node, noise, tensor};

/// Pictures of the bundled family: 32x32, ten classes.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/cifar-cnn/data");

/// A family of two small networks in a folder of its own, to be damaged.
struct Family {
    folder: PathBuf,
}

/// What one network of the family looks like.
#[derive(Clone, Copy)]
struct Net {
    channels: i64,
    side: i64,
    stride: &'static [i64],
    /// Operator between stem and block.
    middle: &'static str,
    /// First weight of the stem.
    first_weight: f32,
}

const NET: Net = Net { channels: 4, side: 32, stride: &[1, 1], middle: "Relu", first_weight: 0.5 };

impl Net {
    /// Stem, two residual blocks, mean, dense layer.
    fn onnx(self) -> Vec<u8> {
        let Self { channels, side, stride, middle, first_weight } = self;
        let weights = |name: &str, inputs: i64, seed: u32| {
            let count = channels * inputs * 9;
            let mut values: Vec<f32> = noise(count as usize, seed).iter().map(|value| value / 3.0).collect();
            if name == "stem" {
                values[0] = first_weight;
            }
            tensor(name, &[channels, inputs, 3, 3], &values)
        };
        let dense: Vec<f32> = noise((channels * 10) as usize, 9);
        let mut tensors = vec![weights("stem", 3, 1), tensor("dense", &[channels, 10], &dense)];
        let same = ("pads", Attribute::Ints(&[1, 1, 1, 1]));
        let mut nodes: Vec<Message> = vec![
            node("Conv", &["x", "stem"], "s", &[same, ("strides", Attribute::Ints(stride))]),
            node(middle, &["s"], "block0", &[]),
        ];
        for block in 0..2 {
            let name = |what: &str| format!("{what}{block}");
            let [from, to] = [format!("block{block}"), format!("block{}", block + 1)];
            tensors.push(weights(&name("v"), channels, 2 + block));
            tensors.push(weights(&name("w"), channels, 4 + block));
            nodes.push(node("Conv", &[&from, &name("v")], &name("c"), &[same]));
            nodes.push(node("Relu", &[&name("c")], &name("r"), &[]));
            nodes.push(node("Conv", &[&name("r"), &name("w")], &name("d"), &[same]));
            nodes.push(node("Add", &[&name("d"), &from], &to, &[]));
        }
        nodes.push(node("GlobalAveragePool", &["block2"], "p", &[]));
        nodes.push(node("Flatten", &["p"], "f", &[]));
        nodes.push(node("Gemm", &["f", "dense"], "y", &[]));
        model(&[1, 3, side, side], &tensors, &nodes)
    }
}

impl Family {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the folder of the tests can be written");
        let family = Self { folder };
        family.net("a", NET);
        family.net("b", Net { channels: 8, ..NET });
        family.description(&format!("{DATA}/calibration"), &format!("{DATA}/test"));
        family
    }

    fn net(&self, name: &str, net: Net) {
        fs::write(self.folder.join(format!("{name}.onnx")), net.onnx()).expect("a network is written");
    }

    fn description(&self, calibration: &str, test: &str) {
        let labels: Vec<String> = (0..10).map(|class| format!("\"class {class}\"")).collect();
        let text = format!(
            "name = \"pair\"\nlabels = [{}]\n[input]\nheight = 32\nwidth = 32\nchannels = 3\nmean = [0.5, 0.5, 0.5]\n\
             std = [0.25, 0.25, 0.25]\n[data]\ncalibration = {calibration:?}\ntest = {test:?}\n\
             [[anchor]]\nname = \"a\"\nfile = \"a.onnx\"\n[[anchor]]\nname = \"b\"\nfile = \"b.onnx\"\n",
            labels.join(", ")
        );
        fs::write(self.folder.join("family.toml"), text).expect("the description is written");
    }

    /// A copy of the calibration pictures of which only the first `count` have labels.
    fn pictures(&self, count: usize) -> String {
        let folder = self.folder.join(format!("pictures-{count}"));
        fs::create_dir_all(&folder).expect("the folder of the tests can be written");
        let labels = fs::read_to_string(format!("{DATA}/calibration/labels.txt")).expect("labels can be read");
        let labels: String = labels.lines().take(count).map(|line| format!("{line}\n")).collect();
        fs::write(folder.join("labels.txt"), labels).expect("labels are written");
        fs::copy(format!("{DATA}/calibration/sheet-00.png"), folder.join("sheet-00.png")).expect("a sheet is copied");
        folder.to_string_lossy().into_owned()
    }

    fn compile(&self) -> Result<Compiled, Error> {
        self.scored(Scoring::Here)
    }

    fn scored(&self, scoring: Scoring) -> Result<Compiled, Error> {
        let spec = family::read(&self.folder.join("family.toml"))?;
        pipeline::compile(&spec, Options { score_images: 20, scoring, stop_after: Stage::Verify, auto16: None }, &Quiet)
    }

    /// The sentence of the refusal, with the folder of the test written as `DIR`.
    fn refusal(&self) -> String {
        let error = self.compile().expect_err("the family is damaged").to_string();
        error.replace(&*self.folder.to_string_lossy(), "DIR")
    }
}

#[test]
fn the_family_compiles_before_it_is_damaged() {
    let Compiled::Image(bytes) = Family::new("whole").compile().unwrap_or_else(|error| panic!("{error}")) else {
        panic!("no image")
    };
    let image = Image::parse(&bytes).expect("the compiler writes valid images");
    assert_eq!((image.meta().anchors, image.configs() >= 2), (2, true));
}

#[test]
fn an_operation_that_is_not_supported_is_named_with_its_node() {
    let family = Family::new("operation");
    family.net("b", Net { middle: "Elu", ..NET });
    let expected = "b: node `the_Elu` (Elu) is not supported: supported operators are Add, AveragePool, ";
    let refusal = family.refusal();
    assert!(refusal.starts_with(expected) && refusal.ends_with("Unsqueeze, Upsample, Where"), "{refusal}");
}

#[test]
fn an_attribute_that_is_not_supported_is_named_with_its_node() {
    let family = Family::new("attribute");
    family.net("a", Net { stride: &[0, 1], ..NET });
    assert_eq!(
        family.refusal(),
        "a: node `the_Conv` (Conv) is not supported: strides = [0, 1]; two numbers from 1 to 255 are expected"
    );
}

#[test]
fn anchors_whose_inputs_differ_are_refused() {
    let family = Family::new("inputs");
    family.net("b", Net { side: 16, ..NET });
    assert_eq!(family.refusal(), "family: the input of `b` is [16, 16, 3] [H, W, C], [input] says [32, 32, 3]");
}

#[test]
fn anchors_without_matching_cuts_are_refused() {
    let family = Family::new("cuts");
    family.net("a", Net { stride: &[2, 2], ..NET });
    assert_eq!(
        family.refusal(),
        "family: no cut of `a` answers one of `b`, which needs two blocks whose maps have the rows and columns of a block of the \
         former: nothing can be stitched; `a` has cuts 1..=3 of 16x16x4; `b` has cuts 1..=3 of 32x32x8"
    );
}

#[test]
fn weights_that_are_not_numbers_are_refused() {
    let family = Family::new("nan");
    family.net("b", Net { first_weight: f32::NAN, ..NET });
    assert_eq!(family.refusal(), "b: `stem` holds NaN at element 0; every weight must be finite");
}

#[test]
fn an_empty_an_unreadable_and_a_small_image_set_are_refused() {
    let family = Family::new("pictures");
    let test = format!("{DATA}/test");
    family.description(&family.pictures(0), &test);
    assert_eq!(family.refusal(), "DIR/pictures-0/labels.txt: no labels: the set is empty");
    family.description(&family.pictures(15), &test);
    assert_eq!(family.refusal(), "learn: 15 images, at least 16 are needed");
    family.description("missing", &test);
    assert_eq!(family.refusal(), "DIR/missing: No such file or directory (os error 2)");
    let broken = family.pictures(16);
    fs::write(Path::new(&broken).join("sheet-00.png"), b"no picture").expect("a file is written");
    family.description(&broken, &test);
    assert_eq!(family.refusal(), "DIR/pictures-16/sheet-00.png: Invalid PNG signature.");
}

#[test]
fn scores_from_no_image_are_refused() {
    let family = Family::new("scores");
    let spec = family::read(&family.folder.join("family.toml")).unwrap_or_else(|error| panic!("{error}"));
    let options = Options { score_images: 0, scoring: Scoring::Here, stop_after: Stage::Verify, auto16: None };
    let error = pipeline::compile(&spec, options, &Quiet).expect_err("nothing to score").to_string();
    assert_eq!(error, "evaluate: 0 images, at least 1 are needed");
}

#[test]
fn anchors_that_are_not_in_the_order_of_their_cost_are_refused() {
    let family = Family::new("order");
    family.net("a", Net { channels: 12, ..NET });
    let refusal = family.refusal();
    assert!(
        refusal.starts_with("family: anchor `a` has ") && refusal.ends_with("list them in increasing order of cost")
    );
}

#[test]
fn limits_on_arena_and_count_are_kept_or_refused_with_what_would_do() {
    let family = Family::new("limits");
    let description = family.folder.join("family.toml");
    let text = fs::read_to_string(&description).expect("the description can be read");
    let with = |limit: &str| {
        fs::write(&description, format!("{text}[limits]\n{limit}\n")).expect("the description is written");
        family.compile().map(|compiled| match compiled {
            Compiled::Image(bytes) => Image::parse(&bytes).expect("a valid image").configs(),
            Compiled::Stopped(text) => panic!("{text}"),
        })
    };
    let all = with("keep = \"all\"").expect("no limit");
    assert!(all > 2, "the family has a stitched config");
    assert_eq!(with("configs = 2").expect("the anchors are two"), 2);
    assert_eq!(with(&format!("configs = {all}")).expect("all may ship"), all);
    let error = with("configs = 1").expect_err("the anchors are two").to_string();
    assert_eq!(error, "family: all 2 anchors ship, limits.configs is 1; raise it or drop anchors");
    let error = with("arena_bytes = 16").expect_err("no anchor is so small").to_string();
    assert!(error.starts_with("family: anchor `a` needs an arena of "), "{error}");
    assert!(error.ends_with(" bytes, limits.arena_bytes is 16; raise it or drop the anchor"), "{error}");
    assert_eq!(with("arena_bytes = 1_000_000").expect("they fit"), all);
}

#[test]
fn a_flash_limit_is_kept_to_the_byte_or_refused_with_what_would_do() {
    let family = Family::new("limit");
    let description = family.folder.join("family.toml");
    let text = fs::read_to_string(&description).expect("the description can be read");
    let with = |limit: usize| {
        fs::write(&description, format!("{text}[limits]\nflash_bytes = {limit}\n"))
            .expect("the description is written");
        family.compile()
    };
    let image = |limit| match with(limit) {
        Ok(Compiled::Image(bytes)) => bytes,
        other => panic!("{limit}: {other:?}"),
    };
    let configs = |bytes: &[u8]| Image::parse(bytes).expect("a valid image").configs();
    let all = image(1 << 20);
    assert!(configs(&all) > 2, "the family has a stitched config");
    assert_eq!(image(all.len()), all);
    let fewer = image(all.len() - 1);
    assert!(fewer.len() < all.len() && configs(&fewer) < configs(&all));
    let error = with(1000).expect_err("no image is so small").to_string();
    let needed = error.strip_prefix("family: the anchors alone need ").and_then(|rest| rest.split_once(' '));
    let (needed, rest) = needed.unwrap_or_else(|| panic!("{error}"));
    assert_eq!(rest, "bytes of flash, limits.flash_bytes is 1000; raise it or drop an anchor");
    let needed: usize = needed.parse().expect("a number of bytes");
    assert_eq!(configs(&image(needed)), 2);
    assert!(with(needed - 1).is_err());
}

#[test]
fn scores_of_something_else_are_refused() {
    let family = Family::new("scores");
    let Ok(Compiled::Image(all)) = family.scored(Scoring::Later) else { panic!("no image") };
    let image = Image::parse(&all).expect("the compiler writes valid images");
    let spec = family::read(&family.folder.join("family.toml")).unwrap_or_else(|error| panic!("{error}"));
    let sheets = Sheets::open(&spec.data.test, [32, 32, 3], 10).unwrap_or_else(|error| panic!("{error}")).first(20);
    let data = sheets.checksum().expect("the files were read before");
    let whole = Tally { done: 20, ..Tally::new(&image, data, 20, Shard::ALL) };
    let given = |tally: Tally| family.scored(Scoring::Given("merged.txt".into(), tally));
    assert!(given(whole.clone()).is_ok());
    let refused = |tally: Tally| given(tally).expect_err("it is of something else").to_string();
    let error = refused(Tally { image: whole.image ^ 1, ..whole.clone() });
    assert!(error.starts_with("merged.txt: it counts the image ") && error.contains("`compile --unscored`"), "{error}");
    let error = refused(Tally { data: data ^ 1, ..whole.clone() });
    assert!(error.contains("its pictures have the checksum "), "{error}");
    let error = refused(Tally { shard: Shard { number: 1, of: 2 }, ..whole.clone() });
    assert!(error.contains("it is one of 2 shards, not of 1"), "{error}");
    let error = refused(Tally { done: 19, ..whole });
    assert!(error.contains("19 of 20 pictures are done"), "{error}");
}

#[test]
fn an_image_truncated_anywhere_is_refused() {
    let bytes = sample::writer().finish();
    for len in 0..bytes.len() {
        let error = Image::parse(&bytes[..len]).expect_err("it is too short");
        let expected = if len < plan::layout::HEADER_LEN { Rule::Magic } else { Rule::Length };
        assert_eq!(error.rule, expected, "{len} bytes: {error}");
    }
    let error = Image::parse(&bytes[..100]).expect_err("it is too short").to_string();
    assert_eq!(
        error,
        "not a valid image: Header record 0: found 100, expected 3816: rule V3: The length in the header is the length of \
         the bytes."
    );
}

#[test]
fn an_image_changed_at_any_byte_is_refused() {
    let bytes = sample::writer().finish();
    for place in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[place] ^= flip;
            let error = Image::parse(&changed).expect_err("a byte is changed");
            let expected = match place {
                0..4 => Rule::Magic,
                4 => Rule::Version,
                8..12 => Rule::Length,
                _ => Rule::Checksum,
            };
            assert_eq!(error.rule, expected, "byte {place}: {error}");
        }
    }
    let stored = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    let mut changed = bytes;
    changed[200] ^= 1;
    let found = plan::checksum(&changed);
    assert_eq!(
        Image::parse(&changed).expect_err("a byte is changed").to_string(),
        format!(
            "not a valid image: Header record 0: found {found}, expected {stored}: rule V4: The CRC-32 of every other byte \
             is the one in the header."
        )
    );
}

#[test]
fn an_arena_one_byte_too_small_is_refused_with_the_bytes_needed() {
    let bytes = sample::writer().finish();
    let image = Image::parse(&bytes).expect("the sample is valid");
    let of = |number| image.config(ConfigId(number)).arena_bytes;
    let smallest = (0..image.configs()).map(of).min().expect("a config");
    let mut arena = vec![0; smallest as usize - 1];
    let error = Engine::new(Scalar, image, &mut arena).err().expect("the arena is too small");
    assert_eq!(error, RunError::ArenaTooSmall { found: smallest - 16, needed: smallest });
    assert_eq!(error.to_string(), format!("the arena has {} usable bytes, {smallest} are needed", smallest - 16));
    // An arena that holds the smallest config, but not the one that is asked for.
    let (config, needed) = (0..image.configs()).map(|n| (n, of(n))).max_by_key(|(_, bytes)| *bytes).expect("a config");
    let mut arena = vec![0; needed as usize - 1];
    let mut engine = Engine::new(Scalar, image, &mut arena).expect("the smallest config fits");
    let error = engine.run_config(ConfigId(config)).expect_err("the arena is too small");
    assert_eq!(error, RunError::ArenaTooSmall { found: needed - 16, needed });
}

#[test]
fn an_input_of_another_size_is_refused() {
    let bytes = sample::writer().finish();
    let image = Image::parse(&bytes).expect("the sample is valid");
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(Scalar, image, &mut arena).expect("the arena is large enough");
    for len in [0, 47, 49] {
        let error = engine.preprocess(&vec![0; len]).expect_err("the input is 4x4x3");
        assert_eq!(error.to_string(), format!("the input has {len} elements, the image expects 48"));
    }
    assert!(engine.preprocess(&[0; 48]).is_ok());
}
