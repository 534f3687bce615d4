//! `kubectl get -w`: prints what is there, then every change.

use serde_json::{Value, json};

use super::{Get, as_table};
use crate::error::{Error, Result};
use crate::output::human::Printer;
use crate::output::print;
use crate::output::printer::{Format, without_managed_fields};
use crate::output::table::Table;
use crate::resource::targets::{Target, items};
use crate::session::{Call, JSON, Session, TABLE};

/// How changes are printed.
struct Sink<'a> {
    get: &'a Get,
    session: &'a Session,
    format: Format,
    printer: Printer,
    printed: bool,
}

impl Sink<'_> {
    /// Prints the rows of a table, or an object.
    fn show(&mut self, document: &Value, event: &str) -> Result<()> {
        if self.format.is_human() {
            let table = match Table::read(document) {
                Some(table) => table,
                None => as_table(self.session, document),
            };
            if table.rows.is_empty() {
                return Ok(());
            }
            return print(&self.printer.print(&table, event));
        }
        let mut document = document.clone();
        if self.format.is_whole() && !self.get.show_managed_fields {
            without_managed_fields(&mut document);
        }
        if self.get.output_watch_events {
            document = json!({"type": event, "object": document});
        }
        if self.printed && matches!(self.format, Format::Yaml) {
            print("---\n")?;
        }
        self.printed = true;
        let mut text = self.format.render(&document)?;
        if matches!(self.format, Format::JsonPath(_)) {
            text.push('\n');
        }
        print(&text)
    }
}

impl Get {
    /// Lists and watches one resource.
    pub(super) async fn follow(&self, session: &Session, targets: Vec<Target>, format: Format) -> Result<()> {
        let [target] = targets.as_slice() else {
            return Err(Error::message("you may only specify a single resource type"));
        };
        let wide = matches!(format, Format::Human(true));
        let printer = Printer::new(self.options(target, wide, false));
        let human = format.is_human();
        let mut sink = Sink { get: self, session, format, printer, printed: false };
        let collection = |human: bool| self.collection(target, human);
        let listed = session.json(&collection(human)).await?;
        if let Some(name) = &target.name
            && !self.ignore_not_found
            && is_empty(&listed)
        {
            // The refusal is worded by the server.
            session.json(&Call::get(target.path())).await?;
            return Err(Error::message(format!("{name:?} vanished")));
        }
        if !self.watch_only {
            match human {
                true => sink.show(&listed, "ADDED")?,
                false => items(&listed).iter().try_for_each(|item| sink.show(item, "ADDED"))?,
            }
        }
        let version = listed["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let changes = self.changes(session, &mut sink, collection(human), version);
        match session.globals.request_timeout() {
            // A watch that has taken as long as a request may is over, and that is no failure.
            Some(limit) => tokio::time::timeout(limit, changes).await.unwrap_or(Ok(())),
            None => changes.await,
        }
    }

    /// Shows what changes after a version, until it is interrupted.
    async fn changes(
        &self,
        session: &Session,
        sink: &mut Sink<'_>,
        collection: Call,
        mut version: String,
    ) -> Result<()> {
        loop {
            let call = collection.clone().query("watch", "true").query("resourceVersion", version.clone());
            let mut events = session.watch(&call).await?;
            let before = version.clone();
            while let Some(event) = events.next().await? {
                let kind = event["type"].as_str().unwrap_or_default();
                let object = &event["object"];
                if kind == "ERROR" {
                    return Err(crate::watch::error_of(object));
                }
                if let Some(seen) = version_of(object) {
                    version = seen;
                }
                if kind != "BOOKMARK" {
                    sink.show(object, kind)?;
                }
            }
            if version == before {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }

    fn collection(&self, target: &Target, human: bool) -> Call {
        let fields = match &target.name {
            Some(name) => format!("metadata.name={name}"),
            None => self.field_selector.clone(),
        };
        Call::get(target.resource.path(&target.namespace))
            .query("labelSelector", self.selector.clone())
            .query("fieldSelector", fields)
            .accept(if human && self.server_print { TABLE } else { JSON })
    }
}

fn is_empty(list: &Value) -> bool {
    ["rows", "items"].iter().all(|field| list[*field].as_array().is_none_or(Vec::is_empty))
}

fn version_of(object: &Value) -> Option<String> {
    let rows = object["rows"].as_array().and_then(|rows| rows.last());
    let holder = rows.map_or(object, |row| &row["object"]);
    holder["metadata"]["resourceVersion"].as_str().map(str::to_owned)
}
