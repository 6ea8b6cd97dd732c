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
    let mut terminal = Terminal::new(TestBackend::new(84, 22)).unwrap();
    terminal.draw(|frame| draw::draw(&still.state, frame)).unwrap();
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
