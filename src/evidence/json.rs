//! One object, for machines: a change a line, so that a program needn't read all of it at once either.

use std::io::Write;

use serde::Serialize;

use super::{About, Summary, Writer};
use crate::delivery::Timestamp;
use crate::drata::LinkEvent;
use crate::ledger::show::evidence::{ActionRow, EvidenceRow};

pub(super) struct Json<'a> {
    out: &'a mut (dyn Write + Send),
    changes: bool,
    actions: bool,
}

#[derive(Serialize)]
struct Change<'a> {
    #[serde(flatten)]
    row: &'a EvidenceRow,
    platform_event: Option<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    id: &'a str,
    at: Timestamp,
}

impl<'a> Json<'a> {
    pub(super) fn begin(out: &'a mut (dyn Write + Send)) -> Self {
        Self { out, changes: false, actions: false }
    }

    /// Begins the list of changes, or of actions, or goes on with it.
    fn item(&mut self, action: bool, item: &impl Serialize) -> anyhow::Result<()> {
        self.lists(action)?;
        let begun = if action { &mut self.actions } else { &mut self.changes };
        self.out.write_all(if *begun { b",\n" } else { b"\n" })?;
        *begun = true;
        Ok(serde_json::to_writer(&mut *self.out, item)?)
    }

    fn lists(&mut self, actions: bool) -> anyhow::Result<()> {
        if !self.changes && !self.actions {
            self.out.write_all(b"{\"changes\":[")?;
        }
        if actions && !self.actions {
            self.out.write_all(b"\n],\n\"actions\":[")?;
        }
        Ok(())
    }
}

impl Writer for Json<'_> {
    fn change(&mut self, row: &EvidenceRow, event: Option<&LinkEvent>) -> anyhow::Result<()> {
        let platform_event = event.map(|event| Event { id: &event.id, at: event.at });
        self.item(false, &Change { row, platform_event })
    }

    fn action(&mut self, row: &ActionRow) -> anyhow::Result<()> {
        self.item(true, row)
    }

    fn end(mut self: Box<Self>, about: &About, summary: &Summary) -> anyhow::Result<()> {
        self.lists(true)?;
        self.out.write_all(b"\n],\n\"report\":")?;
        serde_json::to_writer(&mut *self.out, about)?;
        self.out.write_all(b",\n\"summary\":")?;
        serde_json::to_writer(&mut *self.out, summary)?;
        self.out.write_all(b"}\n")?;
        Ok(self.out.flush()?)
    }
}
