//! The file that rows are appended to, and what it has already.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::{CliError, Problems};
use crate::measure::Row;
use crate::measure::records::{Record, Records, has_result, machine_of};
use crate::platform::Machine;

/// A file of JSON lines that only grows.
pub(super) struct RowFile {
    path: PathBuf,
    file: File,
    /// Whether the rows that it has of each cell have a result, by number of the cell. Those cells need not be measured.
    done: HashMap<String, Vec<bool>>,
}

impl RowFile {
    /// Opens the file, and makes it if need be. Rows of other machines do not count as done, nor with `retry_failed` do those
    /// without a result. A last line that was cut off is dropped.
    ///
    /// # Errors
    /// If there are rows and `resume` is not said, if there is something else, and if the system refuses.
    pub(super) fn open(
        path: &Path,
        resume: bool,
        retry_failed: bool,
        machine: &Machine,
        device: Option<&str>,
    ) -> Result<Self, CliError> {
        let failed = |error: io::Error| CliError::failed(format!("{} cannot be written: {error}", path.display()));
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text.map_err(|error| CliError::failed(format!("{} cannot be read: {error}", path.display())))?,
        };
        if !text.is_empty() && !resume {
            let mut problems = Problems::default();
            problems
                .add("--out", format!("{} is not empty: go on with --resume, or name another file", path.display()));
            return Err(problems.into());
        }
        if text.trim_ascii_start().starts_with(b"[") {
            let mut problems = Problems::default();
            let name = path.display();
            let what = "is a JSON array, behind which no rows can be appended";
            let way =
                format!("make lines of it with `lfm2-host bench merge {name} > rows.jsonl`, and go on with those");
            problems.add("--out", format!("{name} {what}: {way}"));
            return Err(problems.into());
        }
        let records = Records::read_bytes(&text).map_err(|problems| {
            CliError::failed(format!("{} holds no rows to go on with:\n  {}", path.display(), problems.join("\n  ")))
        })?;
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        if let Some(at) = records.torn_at {
            tracing::warn!("the last line of {} was cut off and is dropped", path.display());
            file.set_len(at as u64).map_err(failed)?;
        } else if !text.is_empty() && !text.ends_with(b"\n") {
            writeln!(file).map_err(failed)?;
        }
        let here = here(machine, device);
        let mut done: HashMap<String, Vec<bool>> = HashMap::new();
        for record in records.objects.iter().filter(|record| machine_of(record) == here) {
            let has_result = has_result(record);
            if let Some(cell) = record.get("cell").and_then(Value::as_str).filter(|_| has_result || !retry_failed) {
                done.entry(cell.to_owned()).or_default().push(has_result);
            }
        }
        // Of several rows, one with a result is the one that counts.
        done.values_mut().for_each(|rows| rows.sort_unstable());
        Ok(Self { path: path.to_owned(), file, done })
    }

    /// Whether the row of this cell has a result, if there is one; each row counts for one cell.
    pub(super) fn take(&mut self, cell: &str) -> Option<bool> {
        self.done.get_mut(cell)?.pop()
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a row, which is on the disk afterwards.
    pub(super) fn add(&mut self, row: &Row) -> Result<(), CliError> {
        let line = serde_json::to_string(row).map_err(CliError::failed)? + "\n";
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| CliError::failed(format!("{} cannot be written: {error}", self.path.display())))
    }
}

/// What tells this machine from others in rows.
fn here(machine: &Machine, device: Option<&str>) -> Vec<Value> {
    let mut record = match serde_json::to_value(machine) {
        Ok(Value::Object(record)) => record,
        _ => Record::new(),
    };
    record.insert("device".to_owned(), device.map_or(Value::Null, Value::from));
    machine_of(&record)
}
