//! The command through its real binary: errors are one line that says what to do, and exit codes hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn stitchnet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stitchnet")).args(arguments).output().expect("the binary starts")
}

/// A folder of this test alone.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("the folder of the tests can be written");
    folder
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn errors_are_one_line_and_name_the_file_and_the_remedy() {
    struct Case {
        arguments: &'static [&'static str],
        parts: &'static [&'static str],
    }
    let cases = [
        Case { arguments: &["report", "missing.snet"], parts: &["missing.snet", "stitchnet compile"] },
        Case {
            arguments: &["report", "Cargo.toml"],
            parts: &["Cargo.toml", "not a valid image", "V1", "stitchnet compile"],
        },
        Case { arguments: &["bench", "missing.snet"], parts: &["missing.snet"] },
        Case { arguments: &["simulate", "missing.snet", "--images", "."], parts: &["missing.snet"] },
        Case {
            arguments: &["evaluate", "missing.snet", "--images", "."],
            parts: &["missing.snet", "stitchnet compile"],
        },
        Case { arguments: &["merge", "missing.txt"], parts: &["missing.txt"] },
        Case { arguments: &["inspect", "missing.toml"], parts: &["missing.toml"] },
        Case { arguments: &["compile", "missing.toml"], parts: &["missing.toml"] },
    ];
    for case in cases {
        let output = stitchnet(case.arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{:?}: {error}", case.arguments);
        assert_eq!(error.lines().count(), 1, "{:?}: {error}", case.arguments);
        assert!(error.starts_with("error: "), "{:?}: {error}", case.arguments);
        for part in case.parts {
            assert!(error.contains(part), "{:?}: `{part}` is not in: {error}", case.arguments);
        }
    }
}

#[test]
fn wrong_usage_exits_with_2_and_help_with_examples_exists() {
    assert_eq!(stitchnet(&[]).status.code(), Some(2));
    assert_eq!(stitchnet(&["report"]).status.code(), Some(2));
    assert_eq!(stitchnet(&["bench", "x.snet", "--repeats", "many"]).status.code(), Some(2));
    for command in
        ["inspect", "compile", "report", "evaluate", "merge", "simulate", "bench", "vectors", "demo", "detect", "train"]
    {
        let output = stitchnet(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(text(&output.stdout).contains("Example"), "{command}: {}", text(&output.stdout));
    }
}

#[test]
fn reports_on_an_image_and_writes_a_page() {
    let folder = folder("report");
    let (image, page) = (folder.join("sample.snet"), folder.join("page/sample.html"));
    fs::write(&image, plan::sample::writer().finish()).expect("the image can be written");
    let paths = [&image, &page].map(|path| path.to_string_lossy().into_owned());
    let output = stitchnet(&["report", &paths[0], "--html", &paths[1]]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("tiny.1>wide.1"), "{}", text(&output.stdout));
    assert!(fs::read_to_string(&page).expect("the page was written").contains("</svg>"));
}

#[test]
fn a_loss_by_integers_beyond_the_limit_fails() {
    let mut writer = plan::sample::writer();
    (writer.configs[1].score, writer.configs[1].float_score) = (7_000, 7_123);
    let image = folder("loss").join("sample.snet");
    fs::write(&image, writer.finish()).expect("the image can be written");
    let report = |most| stitchnet(&["report", &image.to_string_lossy(), "--max-loss", most]);
    assert!(report("1.23").status.success(), "{}", text(&report("1.23").stderr));
    let output = report("1.2");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("loses 1.23 points by integers, at most 1.2"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("at most 1.23 points below float"), "{}", text(&output.stdout));
}

#[test]
fn a_damaged_image_is_refused_with_its_rule() {
    let mut bytes = plan::sample::writer().finish();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let image = folder("damaged").join("damaged.snet");
    fs::write(&image, bytes).expect("the image can be written");
    let output = stitchnet(&["report", &image.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("V4"), "{}", text(&output.stderr));
}

#[test]
fn a_wrong_trace_is_refused_with_its_line() {
    let folder = folder("trace");
    let (image, trace) = (folder.join("sample.snet"), folder.join("trace.csv"));
    fs::write(&image, plan::sample::writer().finish()).expect("the image can be written");
    fs::write(&trace, "frame,ticks\n0,fast\n").expect("the trace can be written");
    let paths = [&image, &trace].map(|path| path.to_string_lossy().into_owned());
    let output = stitchnet(&["simulate", &paths[0], "--images", ".", "--trace", &paths[1]]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("trace.csv") && error.contains("line 2, column 3") && error.contains("`fast`"), "{error}");
}

#[test]
fn a_device_that_the_command_has_not_is_refused_with_what_would_do() {
    let of = |device| {
        let output = stitchnet(&["train", "missing.toml", "-o", "out", "--device", device]);
        assert_eq!(output.status.code(), Some(2), "{device}");
        text(&output.stderr)
    };
    for device in ["gpu", "cuda:x", ""] {
        assert!(of(device).contains("`cpu`, `cuda` or `cuda:NUMBER` is expected"), "{}", of(device));
    }
    if !cfg!(feature = "cuda") {
        assert!(of("cuda").contains("--features cuda"), "{}", of("cuda"));
    }
}

const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/blood-cells/data/pictures/BloodImage_00007.jpg");

#[test]
fn detect_prints_boxes_and_draws_them() {
    let folder = folder("detect");
    let image = folder.join("detector.snet").to_string_lossy().into_owned();
    fs::write(&image, plan::sample::detector().finish()).expect("the image can be written");
    let drawn = folder.join("drawn");
    let output = stitchnet(&["detect", &image, PICTURE, "--threshold", "0", "-o", &drawn.to_string_lossy()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let boxes: Vec<&str> = lines.lines().filter(|line| line.starts_with("  ")).collect();
    assert!(!boxes.is_empty() && lines.contains(&format!("BloodImage_00007.jpg: {} boxes", boxes.len())), "{lines}");
    let png = fs::read(drawn.join("BloodImage_00007.png")).expect("the drawing was written");
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let frame = reader.next_frame(&mut pixels).expect("pixels");
    // The drawing is twice as large as a small picture.
    assert_eq!((frame.width, frame.height), (640, 480));

    let output = stitchnet(&["detect", &image, PICTURE, PICTURE, "--threshold", "0", "--json"]);
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    for line in lines.lines() {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(row["boxes"].as_array().map(Vec::len), Some(boxes.len()), "{line}");
        assert!(row["boxes"][0]["corners"].as_array().is_some_and(|corners| corners.len() == 4), "{line}");
    }
}

#[test]
fn detect_refuses_what_it_cannot_do_with_the_reason() {
    let folder = folder("detect-refused");
    let [detector, classifier] = ["detector.snet", "classifier.snet"].map(|name| folder.join(name));
    fs::write(&detector, plan::sample::detector().finish()).expect("the image can be written");
    fs::write(&classifier, plan::sample::writer().finish()).expect("the image can be written");
    let [detector, classifier] = [&detector, &classifier].map(|path| path.to_string_lossy().into_owned());
    let broken = folder.join("broken.jpg");
    fs::write(&broken, &fs::read(PICTURE).expect("the picture")[..500]).expect("the picture can be written");
    let broken = broken.to_string_lossy().into_owned();
    let cases: [(&[&str], &[&str]); 8] = [
        (&[&classifier, PICTURE], &["classifier.snet", "no detector"]),
        (&["missing.snet", PICTURE], &["missing.snet"]),
        (&[&detector, "missing.jpg"], &["missing.jpg"]),
        (&[&detector, &broken], &["broken.jpg"]),
        (&[&detector, PICTURE, "--config", "huge"], &["`huge`", "there are"]),
        (&[&detector, PICTURE, "--budget", "0"], &["--budget", "the cheapest"]),
        (&[&detector, PICTURE, "--threshold", "NaN"], &["--threshold", "from 0 to 1"]),
        (&[&detector, PICTURE, PICTURE, "-o", "out"], &["--output", "one file"]),
    ];
    for (arguments, parts) in cases {
        let output = stitchnet(&[&["detect"], arguments].concat());
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{arguments:?}: {error}");
        for part in parts {
            assert!(error.contains(part), "{arguments:?}: `{part}` is not in: {error}");
        }
    }
}
