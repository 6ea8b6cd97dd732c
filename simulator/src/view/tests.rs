use plan::{Image, sample};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::{State, draw};
use crate::platform::{Row, Switch, Watch};
use crate::{ImageSet, Setup, Trace, watch};

/// Draws nothing: only what the state becomes.
struct Still<'a> {
    image: Image<'a>,
    state: State,
    last: u32,
}

impl Watch for Still<'_> {
    fn segment(&mut self, segment: plan::SegmentId, _: u64) {
        self.state.segment(&self.image, segment);
    }
    fn switched(&mut self, switch: Switch) {
        self.state.switched(switch);
    }
    fn answer(&mut self, output: &[i8]) {
        self.state.answer(output);
    }
    fn frame(&mut self, row: &Row) -> bool {
        self.state.frame(row);
        row.frame < self.last
    }
}

fn picture(trace: &str, last: u32) -> String {
    let bytes = sample::writer().finish();
    let image = Image::parse(&bytes).unwrap();
    let mut still = Still { image, state: State::of(&image, 240, 20), last };
    let pixels: Vec<u8> = (0..8 * 48u32).map(|index| (index * 31 % 256) as u8).collect();
    let pictures = ImageSet { pixels: &pixels, labels: &[0; 8] };
    let setup = Setup::of(Trace::parse(trace).unwrap(), 240, None);
    watch(&bytes, pictures, &setup, &mut still).unwrap();
    drawn(&still.state)
}

fn drawn(state: &State) -> String {
    let mut terminal = Terminal::new(TestBackend::new(84, 22)).unwrap();
    terminal.draw(|frame| draw::draw(state, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = buffer.content.chunks(84).map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
    lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[test]
fn shows_budget_path_and_sums() {
    let picture = picture("frame,ticks,arena_bytes,energy_uj\n0,100,,100\n", 9);
    // wide is the best config: 3 segments of 10 ticks and 4 microjoules, cuts wide.1 and wide.2.
    let expected = [
        "sample: frame 10 of 240, 20 a second",
        "30 of 100 (hard)",
        "12 of 100 (hard)",
        "tiny ──○",
        "wide ━━●━━●",
        "│ wide ",
        "this frame: met; predicted 30 ticks, took 30; clock at 1/1.00, state 0",
        "so far: score 80.00 %",
        "0.1 mJ",
        "missed 0, refused 0, degraded 0",
        "last 10 frames; the top is 100 %",
    ];
    for part in expected {
        assert!(picture.contains(part), "`{part}` is not in\n{picture}");
    }
}

#[test]
fn shows_a_refused_frame_as_one() {
    let picture = picture("frame,ticks\n0,100\n2,7\n", 3);
    for part in ["refused of 7 (hard)", "tiny ──○", "wide ──○──○", "│ refused", "missed 0, refused 2"]
    {
        assert!(picture.contains(part), "`{part}` is not in\n{picture}");
    }
}

#[test]
fn shows_what_a_detector_found() {
    let bytes = sample::detector().finish();
    let image = Image::parse(&bytes).unwrap();
    let mut state = State::of(&image, 10, 20);
    // Their number, then corners in 1/16 pixel, class, logit Q12: 0.88, and one below what is shown.
    let rows = [[2, 0, 0, 0, 0, 0], [16, 0, 112, 64, 1, 8192], [0, 0, 32, 32, 0, -8192]];
    let output: Vec<i8> =
        rows.as_flattened().iter().flat_map(|value: &i16| value.to_le_bytes().map(u8::cast_signed)).collect();
    state.answer(&output);
    let picture = drawn(&state);
    // 34 columns and half as many rows for 8x8 pixels; the box is 6 wide and in the upper half.
    for part in ["1 found", &format!("{} 0.88  1 0 7 4", image.label(1))] {
        assert!(picture.contains(part), "`{part}` is not in\n{picture}");
    }
    let braille = |line: &str| line.chars().filter(|symbol| ('\u{2801}'..='\u{28ff}').contains(symbol)).count();
    let marked: Vec<usize> = picture.lines().map(braille).collect();
    assert!(marked[2..9].iter().all(|&count| count >= 2) && marked[11..].iter().all(|&count| count == 0), "{picture}");
    assert!((20..=26).contains(&marked[2]), "{picture}");
    // The next frame has found nothing yet.
    state.row = Some(row_of_nothing());
    state.leave();
    assert!(drawn(&state).contains("0 found"));
}

fn row_of_nothing() -> Row {
    let budget = runtime::Budget::default();
    Row { frame: 0, budget, outcome: None, stolen: 0, late: 0, slowdown_in_256: 256, state: 0, label: 0 }
}

#[test]
fn is_told_what_the_config_that_answered_found() {
    struct Answers(Vec<Vec<i8>>, Vec<plan::ConfigId>);
    impl Watch for Answers {
        fn answer(&mut self, output: &[i8]) {
            self.0.push(output.to_vec());
        }
        fn frame(&mut self, row: &Row) -> bool {
            self.1.extend(row.outcome.map(|outcome| outcome.last));
            assert_eq!(self.0.len(), self.1.len(), "an answer comes before its frame, and none of a refused one");
            true
        }
    }
    let bytes = sample::detector().finish();
    let image = Image::parse(&bytes).unwrap();
    let pixels: Vec<u8> = (0..3 * 192u32).map(|index| (index * 31 % 256) as u8).collect();
    let pictures = ImageSet { pixels: &pixels, labels: &[0; 3] };
    let setup = Setup::of(Trace::parse("frame,ticks\n0,1000\n2,1\n").unwrap(), 3, None);
    let mut answers = Answers(vec![], vec![]);
    watch(&bytes, pictures, &setup, &mut answers).unwrap();
    assert_eq!(answers.1.len(), 2);
    for (frame, (answer, config)) in answers.0.iter().zip(answers.1).enumerate() {
        let mut arena = vec![0; image.meta().arena_bytes as usize];
        let mut engine = runtime::Engine::new(kernels::arch::Scalar, image, &mut arena).unwrap();
        engine.preprocess(pictures.get(frame).unwrap().0).unwrap();
        assert_eq!(engine.run_config(config).unwrap(), answer);
    }
}
