//! Text in columns that are as wide as their widest cell, counted over neighbouring lines only
//! (elastic tab stops): what tables and descriptions are laid out with.

/// How cells are padded.
#[derive(Clone, Copy)]
pub struct Layout {
    /// The least width of a column, padding included.
    pub min_width: usize,
    /// Spaces after the widest cell.
    pub padding: usize,
}

/// The layout of tables.
pub const TABLE: Layout = Layout { min_width: 6, padding: 3 };
/// The layout of descriptions.
pub const DESCRIBE: Layout = Layout { min_width: 0, padding: 2 };

/// Aligns text whose cells end with tabs; what follows a line's last tab belongs to no column.
pub fn align(text: &str, layout: Layout) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|l| vec![0; l.len() - 1]).collect();
    let depth = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..depth {
        let mut start = 0;
        while start < lines.len() {
            if widths[start].len() <= column {
                start += 1;
                continue;
            }
            let end = (start..lines.len()).find(|&i| widths[i].len() <= column).unwrap_or(lines.len());
            let width = column_width(&lines[start..end], column, layout);
            for line in &mut widths[start..end] {
                line[column] = width;
            }
            start = end;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (i, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if i > 0 {
            out.push('\n');
        }
        write_line(&mut out, cells, widths);
    }
    out
}

/// The width of a column over a block of lines.
fn column_width(block: &[Vec<&str>], column: usize, layout: Layout) -> usize {
    let widest = block.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    (widest + layout.padding).max(layout.min_width)
}

fn write_line(out: &mut String, cells: &[&str], widths: &[usize]) {
    for (cell, width) in cells.iter().zip(widths) {
        out.push_str(cell);
        out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
    }
    if let Some(last) = cells.last() {
        out.push_str(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, layout: Layout, want: &str) {
        assert_eq!(align(text, layout), want);
    }

    #[test]
    fn columns_are_as_wide_as_the_widest_cell() {
        check("NAME\tAGE\nlonger-name\t1d\n", TABLE, "NAME          AGE\nlonger-name   1d\n");
    }

    #[test]
    fn a_line_without_the_column_ends_its_block() {
        check("a\tb\nnext\nlonger\tc\n", DESCRIBE, "a  b\nnext\nlonger  c\n");
    }

    #[test]
    fn narrow_columns_have_the_least_width() {
        check("A\tB\tC\n1\t2\t3", TABLE, "A     B     C\n1     2     3");
    }

    #[test]
    fn widths_count_characters_and_not_bytes() {
        check("é\tb\nab\tc", DESCRIBE, "é   b\nab  c");
    }
}
