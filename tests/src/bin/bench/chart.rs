//! Plots, as SVG.

use plotters::prelude::*;
use std::path::Path;

pub struct Chart {
    pub name: &'static str,
    pub title: String,
    pub x: &'static str,
    pub y: &'static str,
    /// Name and points of each.
    pub series: Vec<(String, Vec<(f64, f64)>)>,
    /// The horizontal axis is logarithmic.
    pub log: bool,
}

type Failed = Box<dyn std::error::Error>;

impl Chart {
    pub fn draw(&self, folder: &Path) -> Result<(), Failed> {
        let path = folder.join(format!("{}.svg", self.name));
        let root = SVGBackend::new(&path, (800, 480)).into_drawing_area();
        root.fill(&WHITE)?;
        let (xs, ys) = self.ranges();
        // Two kinds of axes are two types.
        if self.log {
            let mut chart = self.builder(&root).build_cartesian_2d(xs.log_scale(), ys)?;
            let mut mesh = chart.configure_mesh();
            mesh.x_desc(self.x).y_desc(self.y).draw()?;
            for (number, (name, points)) in self.series.iter().enumerate() {
                let style = Palette99::pick(number).stroke_width(2);
                let drawn =
                    chart.draw_series(LineSeries::new(points.clone(), style).point_size(3))?;
                drawn.label(name).legend(move |(x, y)| legend(x, y, style));
            }
            let mut labels = chart.configure_series_labels();
            labels.background_style(WHITE).border_style(BLACK).draw()?;
        } else {
            let mut chart = self.builder(&root).build_cartesian_2d(xs, ys)?;
            let mut mesh = chart.configure_mesh();
            mesh.x_desc(self.x).y_desc(self.y).draw()?;
            for (number, (name, points)) in self.series.iter().enumerate() {
                let style = Palette99::pick(number).stroke_width(2);
                let drawn =
                    chart.draw_series(LineSeries::new(points.clone(), style).point_size(1))?;
                drawn.label(name).legend(move |(x, y)| legend(x, y, style));
            }
            let mut labels = chart.configure_series_labels();
            labels.background_style(WHITE).border_style(BLACK).draw()?;
        }
        root.present()?;
        Ok(())
    }

    fn builder<'a, 'b>(
        &self,
        root: &'a DrawingArea<SVGBackend<'b>, plotters::coord::Shift>,
    ) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
        let mut builder = ChartBuilder::on(root);
        builder.caption(&self.title, ("sans-serif", 18)).margin(12);
        builder.x_label_area_size(40).y_label_area_size(60);
        builder
    }

    /// Of both axes; the vertical one starts at zero.
    fn ranges(&self) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
        let points = || self.series.iter().flat_map(|(_, points)| points);
        let low = points().map(|p| p.0).fold(f64::INFINITY, f64::min);
        let high = points().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max);
        let top = points().map(|p| p.1).fold(0.0, f64::max);
        // An axis without any length cannot be drawn.
        let high = if high > low { high } else { low + 1.0 };
        (low..high, 0.0..if top > 0.0 { top * 1.1 } else { 1.0 })
    }
}

fn legend(x: i32, y: i32, style: ShapeStyle) -> PathElement<(i32, i32)> {
    PathElement::new(vec![(x, y), (x + 16, y)], style)
}
