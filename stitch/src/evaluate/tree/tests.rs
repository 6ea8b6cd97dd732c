use std::collections::BTreeSet;

use super::Tree;
use support::routes::{Part, deit, parts, swin, two_way};

/// What a walk reads at each step, from what it kept: the whole start of each path that ends.
fn walk(paths: &[Vec<u32>]) -> (Vec<Vec<u32>>, usize) {
    let tree = Tree::of(paths);
    let mut kept = vec![None; tree.depth + 1];
    kept[0] = tree.keeps_input().then(Vec::new);
    let mut now: Vec<u32> = vec![];
    let mut found = vec![vec![]; paths.len()];
    let mut fresh = true;
    for step in &tree.steps {
        if step.resumes {
            now = kept[step.done].clone().expect("what a step resumes from was kept");
        } else {
            assert_eq!((fresh, now.len()), (step.done == 0, step.done), "{step:?} goes on from another place");
        }
        fresh = false;
        now.push(paths[step.path][step.done]);
        if step.keeps {
            kept[step.done + 1] = Some(now.clone());
        }
        step.ends.iter().for_each(|&path| found[path].clone_from(&now));
    }
    (found, tree.steps.iter().filter(|step| step.keeps).count())
}

#[test]
fn every_path_arrives_and_only_forks_are_kept() {
    let paths = [vec![0, 1, 2], vec![0, 9, 7, 8], vec![5, 1, 2], vec![0, 1, 3], vec![0, 9, 7, 8], vec![0, 4]];
    let (found, kept) = walk(&paths);
    assert_eq!(found, paths);
    // Behind 0 and behind 0 1; nothing behind 9, 7, 5.
    assert_eq!(kept, 2);
    let (found, kept) = walk(&[vec![3, 4, 5]]);
    assert_eq!((found, kept), (vec![vec![3, 4, 5]], 0));
    assert!(Tree::of::<u32>(&[]).steps.is_empty());
}

#[test]
fn published_spaces_run_as_many_blocks_as_their_trees_have() {
    for (name, routes, configs, shared, alone) in [
        ("DeiT-Ti/S/B", deit(), 71, 478, 920),
        ("Swin-Ti/S/B", swin(), 41, 522, 881),
        ("SN-Netv2 S-L", two_way(), 134, 894, 2412),
    ] {
        let paths: Vec<Vec<Part>> = routes.iter().map(parts).collect();
        let block = |part: &Part| matches!(part, Part::Block(..));
        let tree = Tree::of(&paths);
        let run = tree.steps.iter().filter(|step| block(&paths[step.path][step.done])).count();
        let sum = paths.iter().flatten().filter(|part| block(part)).count();
        assert_eq!((paths.len(), run, sum), (configs, shared, alone), "{name}");
        let starts: BTreeSet<&[Part]> =
            paths.iter().flat_map(|path| (1..=path.len()).map(|len| &path[..len])).collect();
        assert_eq!(tree.steps.len(), starts.len(), "{name}");
    }
}
