//! Tables as kubectl prints them: columns, no borders.

use comfy_table::{ContentArrangement, Table, presets::NOTHING};

/// `rows` under `header`, each line ended by a newline and by nothing else. Lines are never wrapped: they are data.
pub(crate) fn render<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| cell.replace(|c: char| c.is_control(), " ")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns_and_neither_borders_nor_trailing_spaces() {
        let text = render(["NAME", "READY"], [["default/a".to_owned(), "True".to_owned()]]);
        assert_eq!(text, "NAME       READY\ndefault/a  True\n");
    }

    #[test]
    fn control_characters_of_servers_do_not_reach_the_terminal() {
        let text = render(["NAME"], [["a\u{1b}[2Jb\n".to_owned()]]);
        assert_eq!(text, "NAME\na [2Jb\n");
    }
}
