//! The page: one file, no script, nothing loaded from elsewhere.

use std::fmt::Write;

use simulator::Replay;

use super::curves::{cell, configs as configs_of};
use super::{Facts, HEADS, cells, grouped, kib, millions, milliseconds, plot};

const STYLE: &str = include_str!("style.css");

/// The page of an image, and of a replay on it.
#[must_use]
pub fn html(facts: &Facts, replay: Option<&Replay>) -> String {
    let name = escape(&facts.name);
    let mut page = head(&name);
    let _ = writeln!(
        page,
        "<header><p class=\"kicker\">stitchnet image</p><h1>{name}</h1>\
         <p class=\"lead\">{} anchors, {} configs, one image. The device picks a config per frame and may change its \
         mind at every cut; no weight is copied.</p></header>",
        facts.anchors().count(),
        facts.rows.len(),
    );
    tiles(&mut page, facts);
    let measured = format!(
        "Score on {} images, measured with the integers that the device uses",
        grouped(facts.score_images.into())
    );
    let over = [
        (plot::Price::Time, "What time buys", format!("the time predicted for {}", escape(&facts.target))),
        (plot::Price::Macs, "What arithmetic buys", "multiply-accumulates".to_owned()),
        (plot::Price::Arena, "What memory buys", "the arena, all the memory that activations need".to_owned()),
    ];
    for (price, title, over) in over {
        let caption = format!(
            "{measured}, over {over}. The dark line is the best score that the price buys, the light one leads from anchor to \
             anchor."
        );
        figure(&mut page, title, &plot::frontier(facts, price), &caption);
    }
    if let Some(replay) = replay {
        figure(&mut page, "Under a changing budget", &plot::timeline(facts, replay), &told(facts, replay));
    }
    configs(&mut page, facts);
    page.push_str("<section><h2>What it costs and saves</h2>\n<ul>\n");
    for sentence in facts.sentences() {
        let (head, rest) = sentence.split_once(": ").unwrap_or(("", &sentence));
        let _ = writeln!(page, "<li><b>{head}</b> {}</li>", escape(&capital(rest)));
    }
    page.push_str("</ul></section>\n</main>\n</body>\n</html>\n");
    page
}

/// The page of some images whose stitches were learned in different ways, side by side.
#[must_use]
pub fn beside(images: &[(&str, &Facts)]) -> String {
    let names: Vec<String> = images.iter().map(|(name, _)| escape(name)).collect();
    let family = images.first().map_or(String::new(), |(_, facts)| escape(&facts.name));
    let mut page = head(&family);
    let _ = writeln!(
        page,
        "<header><p class=\"kicker\">stitchnet images</p><h1>{family}</h1>\
         <p class=\"lead\">The same configs, learned in different ways: {}.</p></header>",
        names.join(", ")
    );
    let caption = "Score with the integers that the device uses. Diamonds are anchors, and the lines lead from one to the next; \
                   the other marks are stitched configs. A mark at the lower edge lies below it.";
    figure(&mut page, "What a way of learning buys", &plot::curves(images), caption);
    page.push_str("<section><h2>Configs</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th>config</th><th>MACs</th>");
    names.iter().for_each(|name| page.push_str(&format!("<th>{name}</th>")));
    page.push_str("</tr></thead>\n<tbody>\n");
    for config in configs_of(images) {
        let class = if config.anchor { "anchor" } else { "frontier" };
        let cells: String = config.scores.iter().map(|score| format!("<td>{}</td>", cell(*score))).collect();
        let (name, macs) = (escape(config.name), millions(config.macs));
        let _ = writeln!(page, "<tr class=\"{class}\"><td>{name}</td><td>{macs}</td>{cells}</tr>");
    }
    page.push_str("</tbody></table></div></section>\n</main>\n</body>\n</html>\n");
    page
}

/// Up to the first heading.
fn head(name: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name} · stitchnet</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    )
}

fn tiles(page: &mut String, facts: &Facts) {
    let best = facts.rows.iter().map(|row| row.score).fold(0.0, f64::max);
    let (first, last) = (facts.rows.first(), facts.rows.last());
    let range = first.zip(last).map_or(String::new(), |(first, last)| {
        let unit = if last.milliseconds >= 0.1 { milliseconds(last.milliseconds) } else { String::new() };
        format!("{} – {unit}", milliseconds(first.milliseconds).trim_end_matches(" ms"))
    });
    let tiles = [
        (kib(facts.image_bytes as u64), "image in flash"),
        (kib(facts.arena_bytes.into()), "arena, every config"),
        (range, "predicted time"),
        (format!("{best:.1} %"), "best score"),
    ];
    page.push_str("<div class=\"tiles\">");
    for (value, what) in tiles {
        let _ = write!(page, "<div><b>{value}</b><span>{what}</span></div>");
    }
    page.push_str("</div>\n");
}

fn figure(page: &mut String, title: &str, picture: &str, caption: &str) {
    let _ = writeln!(page, "<figure>\n<h2>{title}</h2>\n{picture}\n<figcaption>{caption}</figcaption>\n</figure>");
}

/// The replay in a sentence.
fn told(facts: &Facts, replay: &Replay) -> String {
    let summary = replay.summary();
    let refused = match summary.refused {
        0 => String::new(),
        count => format!(" {count} frames had a budget below every config and were refused."),
    };
    format!(
        "{} frames: {:.1} % right, {} deadlines missed, {} changes of path inside a frame, {} configs used, {} a frame \
         on average. Time is virtual: the cost table, and time that other tasks steal.{refused}",
        grouped(summary.frames as u64),
        100.0 * summary.accuracy(),
        summary.missed,
        summary.switches,
        summary.configs,
        milliseconds(summary.mean_ticks / facts.ticks_per_millisecond)
    )
}

fn configs(page: &mut String, facts: &Facts) {
    page.push_str("<section><h2>Configs</h2>\n<div class=\"scroll\"><table>\n<thead><tr>");
    for head in HEADS {
        let _ = write!(page, "<th>{head}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in &facts.rows {
        let class = match (row.anchor, row.frontier) {
            (true, _) => "anchor",
            (false, true) => "frontier",
            (false, false) => "beaten",
        };
        let _ = write!(page, "<tr class=\"{class}\">");
        for cell in cells(row) {
            let _ = write!(page, "<td>{}</td>", escape(&cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str(
        "</tbody></table></div>\n<p class=\"note\">Least: no placement of the tensors can need less. Own: flash that no \
         other config uses. Frontier: no other config is both cheaper and better.</p></section>\n",
    );
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
