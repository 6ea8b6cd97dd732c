use super::*;

fn candidate(ticks: u64, arena_bytes: u32, score: u16) -> Candidate {
    Candidate {
        name: String::new(),
        ticks,
        segment_ticks: vec![],
        macs: 0,
        arena_bytes,
        score,
        anchor: false,
        segments: vec![],
        overlays: vec![],
        own_bytes: 0,
    }
}

#[test]
fn keeps_what_nothing_beats() {
    let configs = [(10, 9, 80), (20, 9, 90), (15, 9, 79), (20, 9, 90), (30, 9, 95), (31, 9, 95), (31, 8, 95)];
    let configs = configs.map(|(ticks, arena, score)| candidate(ticks, arena, score));
    assert_eq!(beaten_by(&configs, &[true; 7]), [None, None, Some(0), Some(1), None, Some(4), None]);
}

fn limits(keep: Keep) -> Limits {
    Limits { keep, ..Limits::default() }
}

fn choose(configs: &[Candidate], segment_bytes: &[u64], keep: Keep, flash_bytes: Option<u64>) -> Vec<bool> {
    let limits = Limits { flash_bytes, ..limits(keep) };
    verdicts(configs, segment_bytes, limits).iter().map(Verdict::ships).collect()
}

/// Anchors 0 and 1; 2 is beaten; 3 is worth much score, 4 little, both have a segment of 10 bytes.
fn family() -> Vec<Candidate> {
    let mut configs = [(10, 60), (50, 90), (20, 55), (30, 80), (40, 81)].map(|(t, s)| candidate(t, 1, s)).to_vec();
    for (number, config) in configs.iter_mut().enumerate() {
        config.name = format!("c{number}");
        config.anchor = number < 2;
        config.segments = vec![number];
        config.segment_ticks = vec![config.ticks];
        config.own_bytes = 1;
    }
    configs
}

#[test]
fn drops_nothing_unasked_and_never_an_anchor() {
    let (configs, bytes) = (family(), [10; 5]);
    assert_eq!(choose(&configs, &bytes, Keep::All, None), [true; 5]);
    assert_eq!(choose(&configs, &bytes, Keep::Frontier, None), [true, true, false, true, true]);
    assert_eq!(choose(&configs, &bytes, Keep::All, Some(0)), [true, true, false, false, false]);
}

#[test]
fn a_config_is_not_beaten_by_one_that_had_to_go() {
    let mut configs = [(10, 60), (20, 70), (21, 69)].map(|(t, s)| candidate(t, 1, s)).to_vec();
    configs[0].anchor = true;
    (configs[1].own_bytes, configs[2].own_bytes) = (100, 1);
    let kept = |room| choose(&configs, &[], Keep::Frontier, Some(room));
    assert_eq!(kept(100), [true, true, false]);
    assert_eq!(kept(99), [true, false, true]);
}

#[test]
fn says_why_a_config_is_left_out() {
    let (configs, bytes) = (family(), [10; 5]);
    let limits = Limits { flash_bytes: Some(43), ..limits(Keep::Frontier) };
    let verdicts = verdicts(&configs, &bytes, limits);
    let choice = Choice { rows: configs.into_iter().zip(verdicts).collect() };
    assert_eq!(
        choice.to_string(),
        "c0: 0.60 %, 10 ticks, arena 1: ships\n\
         c1: 0.90 %, 50 ticks, arena 1: ships\n\
         c2: 0.55 %, 20 ticks, arena 1: left out, c0 is no dearer and no worse\n\
         c3: 0.80 %, 30 ticks, arena 1: ships\n\
         c4: 0.81 %, 40 ticks, arena 1: left out for the flash limit, frees 11 bytes\n\
         3 of 5 configs ship, 0 of them as step-downs\n"
    );
}

#[test]
fn drops_what_costs_least_score_per_byte_until_the_flash_is_enough() {
    let (configs, bytes) = (family(), [10; 5]);
    assert_eq!(choose(&configs, &bytes, Keep::All, Some(55)), [true; 5]);
    assert_eq!(choose(&configs, &bytes, Keep::All, Some(54)), [true, true, false, true, true]);
    assert_eq!(choose(&configs, &bytes, Keep::All, Some(43)), [true, true, false, true, false]);
}

#[test]
fn no_more_configs_ship_than_may_and_none_with_too_large_an_arena() {
    let mut configs = family();
    configs[3].arena_bytes = 2;
    configs[1].arena_bytes = 2;
    let limits = Limits { configs: Some(3), ..limits(Keep::All) };
    // 2 costs no score, 4 one step, 3 twenty.
    let found = verdicts(&configs, &[10; 5], limits);
    assert_eq!(found[2..], [Verdict::TooMany { limit: 3 }, Verdict::Ships, Verdict::TooMany { limit: 3 }]);
    // Without 3, 4 is worth 21. An anchor ships whatever it needs; the caller has refused before.
    let found = verdicts(&configs, &[10; 5], Limits { arena_bytes: Some(1), ..limits });
    assert_eq!(
        found[1..],
        [Verdict::Ships, Verdict::TooMany { limit: 3 }, Verdict::NoRoom { limit: 1 }, Verdict::Ships]
    );
}

/// `large` runs 0 1 2 3 of 100 ticks each, `small` 4 5 6 7 of 10 each; a way out leaves large after one to three segments by
/// a stitch 8 9 10 of 1 tick and enters small. All ways out are worse than small.
fn ladder() -> Vec<Candidate> {
    let paths: [(&str, &[usize], u16); 5] = [
        ("small", &[4, 5, 6, 7], 70),
        ("large", &[0, 1, 2, 3], 90),
        ("out1", &[0, 8, 5, 6, 7], 60),
        ("out2", &[0, 1, 9, 6, 7], 60),
        ("out3", &[0, 1, 2, 10, 7], 60),
    ];
    let ticks = |segment: usize| [100, 10, 1][segment / 4];
    let config = |(number, (name, segments, score)): (usize, (&str, &[usize], u16))| {
        let segment_ticks: Vec<u64> = segments.iter().map(|&segment| ticks(segment)).collect();
        let mut config = candidate(segment_ticks.iter().sum(), 1, score);
        (config.name, config.anchor) = (name.to_owned(), number < 2);
        (config.segments, config.segment_ticks) = (segments.to_vec(), segment_ticks);
        config
    };
    paths.into_iter().enumerate().map(config).collect()
}

#[test]
fn the_cheapest_way_on_from_every_cut_ships_as_a_step_down() {
    let configs = ladder();
    let found = verdicts(&configs, &[0; 11], limits(Keep::Frontier));
    let step = |done, saves| Verdict::StepsDown { from: 1, done, saves };
    // Behind one segment of large 300 ticks are left, or 1 + 30; behind two 200, or 1 + 20; behind three 100, or 1 + 10.
    assert_eq!(found, [Verdict::Ships, Verdict::Ships, step(1, 269), step(2, 179), step(3, 89)]);
    let text = Choice { rows: configs.clone().into_iter().zip(found).collect() }.to_string();
    assert!(
        text.contains("ships as a step-down, after 2 segments of large it ends 179 ticks before any other"),
        "{text}"
    );
    assert!(text.ends_with("5 of 5 configs ship, 3 of them as step-downs\n"), "{text}");
    // Where the flash or the count is short, they go first: of the count, the one that saves least.
    let few = verdicts(&configs, &[0; 11], Limits { configs: Some(4), ..limits(Keep::Frontier) });
    assert_eq!(few[2..], [step(1, 269), step(2, 179), Verdict::TooMany { limit: 4 }]);
}

#[test]
fn a_way_on_that_computed_other_things_or_needs_more_arena_is_none() {
    let ships = |configs: &[Candidate]| choose(configs, &[0; 11], Keep::Frontier, None);
    let mut configs = ladder();
    configs[3].arena_bytes = 2;
    assert_eq!(ships(&configs), [true, true, true, false, true]);
    let mut configs = ladder();
    // Another bias in the first segment; one in the last leaves the start equal.
    configs[2].overlays = vec![[0, 5, 5]];
    configs[4].overlays = vec![[4, 5, 5]];
    assert_eq!(ships(&configs), [true, true, false, true, true]);
    // No way out is cheaper than what ships.
    let mut configs = ladder();
    configs[2].segment_ticks[1] = 1000;
    configs[2].ticks += 999;
    assert_eq!(ships(&configs), [true, true, false, true, true]);
}

#[test]
fn only_the_cheapest_of_several_ways_on_is_a_step_down() {
    let mut configs = ladder();
    // As out1, but straight to the output behind segment 5.
    let mut further = configs[2].clone();
    (further.name, further.segments, further.segment_ticks) =
        ("further".into(), vec![0, 8, 5, 3], vec![100, 1, 10, 15]);
    further.ticks = 126;
    configs.push(further);
    let found = verdicts(&configs, &[0; 11], limits(Keep::Frontier));
    assert_eq!(found[5], Verdict::StepsDown { from: 1, done: 1, saves: 274 });
    assert_eq!(found[2], Verdict::Beaten { by: 0 });
}

#[test]
fn a_config_below_the_line_of_its_neighbours_is_left_out_with_the_score_of_the_line() {
    // Anchors at 100, 200 and 400 MACs.
    let points = [
        (100, 60),
        (200, 90),
        (400, 91),
        (150, 75),
        (150, 74),
        (300, 91),
        (300, 90),
        (90, 1),
        (500, 91),
        (500, 90),
        (200, 89),
    ];
    let mut configs = points.map(|(macs, score)| Candidate { macs, ..candidate(macs, 1, score) });
    for (number, config) in configs.iter_mut().enumerate() {
        (config.name, config.anchor) = (format!("c{number}"), number < 3);
    }
    let found = verdicts(&configs, &[], limits(Keep::Line));
    let below = |from, to, line| Verdict::BelowLine { from, to, line };
    let ships = Verdict::Ships;
    // From 90 to 91 half-way is 90.5: a score of 90 is below.
    assert_eq!(found[3..7], [ships, below(0, 1, 75), ships, below(1, 2, 91)]);
    // Cheaper than all anchors there is no line; dearer than all it is level; at an anchor it is its score.
    assert_eq!(found[7..], [ships, ships, below(2, 2, 91), below(1, 2, 90)]);
    let text = Choice { rows: configs.into_iter().zip(found).collect() }.to_string();
    assert!(
        text.contains(
            "c4: 0.74 %, 150 ticks, arena 1: left out, with 150 MACs it is below the line from c0 to c1, 0.75 %"
        ),
        "{text}"
    );
}
