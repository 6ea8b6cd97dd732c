//! Writes an image of many configs that compute almost nothing: `cargo run -p support --example ladder -- FILE CONFIGS`.

use plan::Cost;
use support::Random;
use support::ladder::{Ladder, image};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("the file to write");
    let configs = arguments.next().and_then(|count| count.parse().ok()).expect("how many configs");
    let ladder = Ladder { anchors: 4, depth: 6, hops: 3, configs, both_ways: true };
    let bytes = image(ladder, &mut Random::new(64), |random| {
        let ticks = 100 + random.below(900) as u32;
        Cost { ticks, bound_ticks: ticks * 3 / 2, energy_uj: ticks / 2, bound_energy_uj: ticks }
    });
    std::fs::write(&path, bytes).expect("the file can be written");
}
