use std::path::{Path, PathBuf};

use plan::Image;

use super::{Shard, Tally, merge};
use crate::evaluate::Answers;

/// The answers of three configs for an image: right, wrong, and right for every third.
fn answers(image: usize) -> (Answers, u16) {
    let label = (image % 2) as u16;
    let third = if image.is_multiple_of(3) { label } else { 1 - label };
    (Answers { classes: vec![label, 1 - label, third], outputs: vec![] }, label)
}

/// The tally of a shard after so many of its images.
fn tally(shard: Shard, images: usize, done: usize) -> Tally {
    let bytes = plan::sample::writer().finish();
    let mut tally = Tally::new(&Image::parse(&bytes).expect("the sample is valid"), 7, images, shard);
    for image in (0..images).filter(|&image| shard.has(image)).take(done) {
        let (answers, label) = answers(image);
        tally.add(&answers, label);
    }
    tally
}

/// Files and what they hold.
type Parts = Vec<(PathBuf, Tally)>;

/// What breaks them, and what is said then.
type Fault<'a> = (&'a dyn Fn(&mut Parts), String);

fn shards(of: usize, images: usize) -> Parts {
    let shard = |number| (format!("{number}.txt").into(), tally(Shard { number, of }, images, usize::MAX));
    (1..=of).map(shard).collect()
}

#[test]
fn every_image_is_in_one_shard() {
    for (images, of) in [(10, 3), (10, 1), (3, 5), (12, 4), (0, 2)] {
        let shards: Vec<Shard> = (1..=of).map(|number| Shard { number, of }).collect();
        assert!((0..images).all(|image| shards.iter().filter(|shard| shard.has(image)).count() == 1));
        for shard in shards {
            assert_eq!(
                shard.share(images),
                (0..images).filter(|&image| shard.has(image)).count(),
                "{shard:?} {images}"
            );
        }
    }
    assert_eq!("3/4".parse(), Ok(Shard { number: 3, of: 4 }));
    for text in ["0/4", "5/4", "1", "1/0", "-1/2", "a/b", "1/2/3", ""] {
        assert!(text.parse::<Shard>().is_err(), "{text}");
    }
}

#[test]
fn merged_shards_are_the_whole_run_whatever_their_order() {
    let whole = tally(Shard::ALL, 50, 50);
    assert_eq!(whole.configs.iter().map(|(_, right)| *right).collect::<Vec<_>>(), [50, 0, 17]);
    for of in [1, 3, 7] {
        let mut parts = shards(of, 50);
        parts.reverse();
        assert_eq!(merge(&parts).expect("all are there").to_string(), whole.to_string());
    }
}

#[test]
fn what_is_written_is_read_again() {
    let tally = tally(Shard { number: 2, of: 3 }, 50, 5);
    assert_eq!(Tally::parse(&tally.to_string(), Path::new("x")).expect("its own text"), tally);
    let text = tally.to_string();
    let faults = [
        ("stitchnet tally 1", "stitchnet tally 2", "line 1: `stitchnet tally 2`; `stitchnet` and `tally 1`"),
        ("data 00000007", "data seven", "line 3: `data seven`; `data` and a checksum"),
        ("images 50", "images -1", "line 4: `images -1`; `images` and a number"),
        ("shard 2 of 3", "shard 4 of 3", "line 5: `shard 4 of 3`; `shard` and `1 of 4`, say,"),
        ("done 5", "done 18", "line 6: `done 18`; `done` and a number up to 17"),
        ("right 0 wide", "right 6 wide", "line 8: `right 6 wide`; `right`, a number up to 5 and a name"),
        ("right 0 wide", "wide", "line 8: `wide`; `right`"),
    ];
    for (from, to, expected) in faults {
        assert!(text.contains(from), "{from} is not in {text}");
        let error = Tally::parse(&text.replace(from, to), Path::new("part.txt")).expect_err(to).to_string();
        assert!(error.starts_with(&format!("part.txt: {expected}")), "{error}");
    }
    // Cut off anywhere but before the last end of line, it is refused, or is a list of configs that the image has not.
    for len in 0..text.len() {
        if let Ok(short) = Tally::parse(&text[..len], Path::new("x")) {
            assert!(short.same_run(&tally).is_err() || len + 1 == text.len(), "{short:?}");
        }
    }
}

#[test]
fn shards_that_do_not_fit_are_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Parts)| {
        let mut parts = shards(3, 50);
        change(&mut parts);
        merge(&parts).expect_err("they do not fit").to_string()
    };
    let image = format!("{:08x}", tally(Shard::ALL, 1, 0).image);
    let cases: [Fault<'_>; 8] = [
        (&|parts| parts.clear(), "merge: no files; one per shard is needed".into()),
        (&|parts| drop(parts.remove(1)), "merge: 2 of 3 shards; missing: 2".into()),
        (&|parts| parts[2] = ("4.txt".into(), parts[0].1.clone()), "4.txt: shard 1 of 3 is in 1.txt already".into()),
        (&|parts| parts[1].1.done -= 1, "2.txt: 16 of 17 pictures are done; run its `evaluate` again to end it".into()),
        (&|parts| parts[1].1.image = 1, format!("2.txt: it counts the image 00000001, not {image} as 1.txt")),
        (&|parts| parts[2].1.data = 8, "3.txt: its pictures have the checksum 00000008, not 00000007 as 1.txt".into()),
        (&|parts| parts[2].1.images = 51, "3.txt: it is of 51 pictures, not of 50 as 1.txt".into()),
        (&|parts| parts[1].1.shard.of = 4, "2.txt: it is one of 4 shards, not of 3 as 1.txt".into()),
    ];
    for (change, expected) in cases {
        assert_eq!(refused(change), expected);
    }
}
