//! Draws a table as pictures (SVG): lines over sizes, bars over names. One for each unit.

use plotters::prelude::*;

use crate::table::{Table, bytes};

/// The picture of those columns of a table that have the same unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plot {
    /// The unit, for the alternative text of the picture, and for its file name.
    pub(super) unit: String,
    /// The picture.
    pub(super) svg: String,
}

const FONT: &str = "sans-serif";
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
    RGBColor(150, 40, 40),
];
/// If the largest value is more than this many times the smallest, bars have a logarithmic scale.
const WIDE: f64 = 30.0;

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Point = (f64, f64);

/// Draws all pictures of a table of this benchmark.
///
/// # Errors
/// If one cannot be drawn.
pub(super) fn plots(bench: &str, table: &Table) -> Result<Vec<Plot>, Box<dyn std::error::Error>> {
    let mut units: Vec<&str> = Vec::new();
    for column in &table.columns {
        if !column.unit.is_empty() && !units.contains(&column.unit.as_str()) {
            units.push(&column.unit);
        }
    }
    let mut plots = Vec::new();
    for unit in units {
        let mut svg = String::new();
        let sizes = table.rows.iter().filter(|row| row.x.is_some_and(|x| x > 0.0)).count();
        let named = table.rows.iter().filter(|row| row.x.is_none()).count();
        if sizes >= 2 {
            lines(table, &format!("{bench}, {}, {unit}", table.title), unit, &mut svg)?;
        } else if named >= 2 {
            bars(table, &format!("{bench}, {}: {unit}", table.title), unit, &mut svg)?;
        }
        if !svg.is_empty() {
            plots.push(Plot { unit: unit.to_owned(), svg });
        }
    }
    Ok(plots)
}

/// The data of a unit: for each column its name and its points, sizes as powers of two.
fn series<'a>(table: &'a Table, unit: &str) -> Vec<(&'a str, Vec<Point>)> {
    let columns = table.columns.iter().enumerate().filter(|(_, column)| column.unit == unit);
    columns
        .map(|(index, column)| {
            let point = |row: &crate::table::Row| {
                let x = row.x.filter(|x| *x > 0.0)?.log2();
                let y = row.cells.get(index).copied().flatten()?.median;
                (y > 0.0).then_some((x, y))
            };
            (column.name.as_str(), table.rows.iter().filter_map(point).collect())
        })
        .collect()
}

fn lines(table: &Table, title: &str, unit: &str, svg: &mut String) -> Drawn {
    let series = series(table, unit);
    let points = || series.iter().flat_map(|(_, points)| points);
    let least = |number: fn(&Point) -> f64| points().map(number).fold(f64::INFINITY, f64::min);
    let most = |number: fn(&Point) -> f64| points().map(number).fold(f64::NEG_INFINITY, f64::max);
    let (x, y) = ((least(|p| p.0), most(|p| p.0)), (least(|p| p.1), most(|p| p.1)));
    if !(x.0 < x.1 && y.0 > 0.0) {
        return Ok(());
    }
    // Whole decades, so that there are always some labels on the axis.
    let decades = 10_f64.powf(y.0.log10().floor())..10_f64.powf((y.1.log10() + 1e-9).ceil());
    let root = SVGBackend::with_string(svg, (720, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(x.0..x.1, decades.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(RGBColor(235, 235, 235))
        .x_labels((x.1 - x.0) as usize / 3 + 2)
        .x_label_formatter(&|x| bytes(x.exp2().round() as usize))
        .y_label_formatter(&|y| short(*y))
        .label_style((FONT, 13))
        .draw()?;
    for (index, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font((FONT, 13))
        .draw()?;
    root.present()?;
    Ok(())
}

const BAR: i32 = 18;
const LEFT: i32 = 300;
const WIDTH: i32 = 720;
const LONGEST: f64 = 330.0;

fn bars(table: &Table, title: &str, unit: &str, svg: &mut String) -> Drawn {
    let columns: Vec<_> =
        table.columns.iter().enumerate().filter(|(_, column)| column.unit == unit).collect();
    let mut all = Vec::new();
    for row in &table.rows {
        for (colour, (index, column)) in columns.iter().enumerate() {
            if let Some(spread) = row.cells.get(*index).copied().flatten() {
                let name = if columns.len() > 1 {
                    format!("{}, {}", row.name, column.name)
                } else {
                    row.name.clone()
                };
                all.push((name, spread.median, COLOURS[colour % COLOURS.len()], column.digits));
            }
        }
    }
    let most = all.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let least = all.iter().map(|bar| bar.1).filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
    if all.len() < 2 || most <= 0.0 {
        return Ok(());
    }
    let wide = most / least > WIDE;
    let length = |value: f64| {
        let part =
            if wide { (value / least * 2.0).log10() / (most / least * 2.0).log10() } else { value / most };
        if value > 0.0 { (part * LONGEST) as i32 } else { 0 }
    };
    let height = 56 + (BAR + 6) * i32::try_from(all.len())?;
    let root =
        SVGBackend::with_string(svg, (WIDTH.cast_unsigned(), height.cast_unsigned())).into_drawing_area();
    root.fill(&WHITE)?;
    let scale = if wide { " (logarithmic)" } else { "" };
    root.draw(&Text::new(format!("{title}{scale}"), (12, 14), (FONT, 18)))?;
    for (index, (name, value, colour, digits)) in all.iter().enumerate() {
        let top = 46 + (BAR + 6) * i32::try_from(index)?;
        let end = LEFT + length(*value);
        root.draw(&Text::new(name.clone(), (12, top + 3), (FONT, 13)))?;
        root.draw(&Rectangle::new([(LEFT, top), (end, top + BAR)], colour.filled()))?;
        root.draw(&Text::new(format!("{value:.digits$}"), (end + 6, top + 3), (FONT, 13)))?;
    }
    root.present()?;
    Ok(())
}

/// Formats a number for an axis.
fn short(number: f64) -> String {
    let text = if number < 1.0 { format!("{number:.4}") } else { format!("{number:.1}") };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_become_lines_and_names_become_bars() {
        let mut sized = Table::new("Shm: latency", "size").column("River", "us", 2).column("ratio", "", 1);
        for (size, time) in [(0, 0.5), (8, 0.6), (1024, 1.0), (65_536, 9.0)] {
            sized.sized(size, [Some(time.into()), Some(1.0.into())]);
        }
        let plotted = plots("links", &sized).unwrap();
        assert_eq!(plotted.len(), 1, "a ratio is not drawn");
        assert!(plotted[0].svg.contains("links, Shm: latency, us") && plotted[0].svg.contains("polyline"));

        let mut named = Table::new("farm", "").column("rate", "tasks/s", 0).column("call", "us", 1);
        named.row("River", [Some(1_000_000.0.into()), Some(2.0.into())]);
        named.row("Dask", [Some(1_000.0.into()), None]);
        let plotted = plots("farm", &named).unwrap();
        assert_eq!(plotted.len(), 1, "a single bar says nothing");
        assert!(plotted[0].svg.contains("logarithmic") && plotted[0].svg.contains("1000000"));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let mut table = Table::new("nothing", "size").column("River", "us", 2);
        assert!(plots("links", &table).unwrap().is_empty());
        table.sized(8, [None]);
        table.sized(9, [Some(0.0.into())]);
        assert!(plots("links", &table).unwrap().is_empty());
    }

    #[test]
    fn axes_have_short_numbers() {
        assert_eq!([0.001, 0.1, 1.0, 10.0, 2.5].map(short), ["0.001", "0.1", "1", "10", "2.5"]);
    }
}
