//! Step-downs: configs that nobody would begin, but that a run which is under way can go on as.

use super::{Candidate, Verdict};

/// At every cut of every config that ships, the cheapest way on ships too, if it ends before all that do already. A way
/// on has run the same segments with the same biases, and needs no more arena. From the cuts of what is added nothing is
/// cheaper: it would have been so from the cut before.
pub(super) fn keep(configs: &[Candidate], in_play: &[bool], verdicts: &mut [Verdict]) {
    let starts: Vec<_> = configs.iter().map(start).collect();
    let ahead = |config: usize, done: usize| configs[config].segment_ticks[done..].iter().sum::<u64>();
    let in_play = || (0..configs.len()).filter(|&config| in_play[config]);
    let ship: Vec<usize> = in_play().filter(|&config| verdicts[config].ships()).collect();
    for from in ship {
        let shared = |config: usize| starts[from].iter().zip(&starts[config]).take_while(|(a, b)| a == b).count();
        let others = in_play().filter(|&config| configs[config].arena_bytes <= configs[from].arena_bytes);
        let others: Vec<(usize, usize)> = others.map(|config| (config, shared(config))).collect();
        for done in 1..configs[from].segments.len() {
            let ways = || others.iter().filter(|(_, shared)| *shared >= done).map(|&(way, _)| (ahead(way, done), way));
            let least = ways().filter(|&(_, way)| verdicts[way].ships()).map(|(ticks, _)| ticks).min();
            if let (Some(least), Some((ticks, way))) = (least, ways().min())
                && ticks < least
            {
                verdicts[way] = Verdict::StepsDown { from, done, saves: least - ticks };
            }
        }
    }
}

/// The segments of a config, each with its biases: what must be equal where two share a start.
fn start(config: &Candidate) -> Vec<(usize, Vec<[u32; 2]>)> {
    let biases = |step: usize| {
        let overlays = config.overlays.iter().filter(|[at, _, _]| *at as usize == step);
        overlays.map(|&[_, op, bias]| [op, bias]).collect()
    };
    config.segments.iter().enumerate().map(|(step, &segment)| (segment, biases(step))).collect()
}
