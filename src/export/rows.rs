//! Leaves as rows of a table: one for each item, and one for a leaf that has none.
//!
//! Tools of auditors sort, filter and count rows, and do not look into lists. So what a leaf says of the request as a whole
//! stands in each of its rows, and `index` says which belong together.

use data_encoding::HEXLOWER;
use serde_json::{Map, Value};
use strongroom_ledger::Timestamp;
use strongroom_ledger::leaf::{ParsedItem, ParsedLeaf};

/// A row: a leaf, and which of its items.
pub(crate) struct Row<'l> {
    leaf: &'l ParsedLeaf,
    item: Option<(u64, &'l ParsedItem)>,
}

/// What stands in a cell.
pub(crate) enum Cell {
    Nothing,
    Text(String),
    Number(u64),
    Time(Timestamp),
}

/// What stands in the cells of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Time,
}

/// A column.
pub(crate) struct Column {
    pub name: &'static str,
    pub kind: Kind,
    /// Whether something stands in each of its cells.
    pub always: bool,
    pub cell: fn(&Row<'_>) -> Cell,
}

const fn column(name: &'static str, kind: Kind, always: bool, cell: fn(&Row<'_>) -> Cell) -> Column {
    Column { name, kind, always, cell }
}

/// All columns, in the order of a leaf's members.
pub(crate) const COLUMNS: [Column; 24] = [
    column("index", Kind::Number, true, |row| Cell::Number(row.leaf.index)),
    column("time", Kind::Time, true, |row| Cell::Time(row.leaf.time)),
    column("part", Kind::Text, false, |row| text(row.leaf.part.map(|part| format!("{}/{}", part.which, part.of)))),
    column("request", Kind::Text, true, |row| text(Some(HEXLOWER.encode(&row.leaf.request)))),
    column("principal", Kind::Text, true, |row| text(Some(row.leaf.principal.clone()))),
    column("actor", Kind::Text, false, |row| text(row.leaf.actor.clone())),
    column("action", Kind::Text, true, |row| text(Some(row.leaf.action.clone()))),
    column("purpose", Kind::Text, false, |row| text(row.leaf.purpose.clone())),
    column("decision", Kind::Text, true, |row| text(Some(row.leaf.decision.clone()))),
    column("reason", Kind::Text, false, |row| text(row.leaf.reason.clone())),
    column("policy", Kind::Number, true, |row| Cell::Number(row.leaf.policy.into())),
    column("schema", Kind::Number, true, |row| Cell::Number(row.leaf.schema.into())),
    column("keys", Kind::Text, true, |row| text(Some(object(&row.leaf.keys)))),
    column("client", Kind::Text, true, |row| text(Some(row.leaf.client.clone()))),
    column("detail", Kind::Text, false, |row| text((!row.leaf.detail.is_empty()).then(|| object(&row.leaf.detail)))),
    column("item", Kind::Number, false, |row| number(row.item.map(|(number, _)| number))),
    column("field", Kind::Text, false, |row| of_item(row, |item| text(item.field.clone()))),
    column("row", Kind::Number, false, |row| of_item(row, |item| number(item.row.map(|row| row.0)))),
    column("view", Kind::Text, false, |row| of_item(row, |item| text(item.view.clone()))),
    column("outcome", Kind::Text, false, |row| of_item(row, |item| text(Some(item.outcome.clone())))),
    column("subject", Kind::Number, false, |row| of_item(row, |item| number(item.subject.map(|subject| subject.0)))),
    column("version", Kind::Number, false, |row| {
        of_item(row, |item| number(item.version.map(|version| version.0.into())))
    }),
    column("sha256", Kind::Text, false, |row| of_item(row, |item| text(item.hash.map(|hash| HEXLOWER.encode(&hash))))),
    column("sent", Kind::Text, false, |row| of_item(row, |item| text(item.sent.map(|sent| HEXLOWER.encode(&sent))))),
];

/// The rows of a leaf.
pub(crate) fn rows(leaf: &ParsedLeaf) -> impl Iterator<Item = Row<'_>> {
    let bare = leaf.items.is_empty().then_some(Row { leaf, item: None });
    let items = (1..).zip(&leaf.items).map(move |item| Row { leaf, item: Some(item) });
    bare.into_iter().chain(items)
}

fn text(text: Option<String>) -> Cell {
    text.map_or(Cell::Nothing, Cell::Text)
}

fn number(number: Option<u64>) -> Cell {
    number.map_or(Cell::Nothing, Cell::Number)
}

fn of_item(row: &Row<'_>, cell: impl FnOnce(&ParsedItem) -> Cell) -> Cell {
    row.item.map_or(Cell::Nothing, |(_, item)| cell(item))
}

/// Members as JSON, in their order.
fn object<V: Clone + Into<Value>>(members: &[(String, V)]) -> String {
    let members = members.iter().map(|(name, value)| (name.clone(), value.clone().into()));
    Value::Object(members.collect::<Map<String, Value>>()).to_string()
}
