//! `sol store import`: a new journal of lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use super::fill::{Fill, PutError};
use super::{DATA, IO, NO_INPUT, lines, say};
use crate::config::reason;
use crate::serve::Failure;

/// A line has the largest packet in Base64, and some more.
const LINE_BYTES_MAX: u64 = 512 << 20;

/// Makes a journal of a file's lines, of all of them or none.
///
/// # Errors
/// The file cannot be read, or a line is no record, which is named then.
pub(super) fn import(file: &Path, directory: &Path) -> Result<(), Failure> {
    let (name, input): (String, Box<dyn BufRead>) = if file == Path::new("-") {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let input = File::open(file).map_err(|error| Failure {
            code: NO_INPUT,
            text: format!("cannot read {}: {}", file.display(), reason(&error)),
        })?;
        (file.display().to_string(), Box::new(BufReader::new(input)))
    };
    let (records, place) = fill(&name, input, directory)?;
    say(&format!("{records} records imported into {}", place.display()));
    Ok(())
}

fn fill(name: &str, input: impl BufRead, directory: &Path) -> Result<(u64, std::path::PathBuf), Failure> {
    let mut lines_of = Lines {
        name,
        input,
        number: 0,
        line: String::new(),
    };
    let about = match lines_of.next()? {
        Some(line) => lines::read_head(line),
        None => Err("the file is empty".to_owned()),
    };
    let about = about.map_err(|text| lines_of.wrong(&text))?;
    let mut fill = Fill::new(directory, &about)?;
    while let Some(line) = lines_of.next()? {
        if line.is_empty() {
            continue;
        }
        let put = lines::read(line, &about)
            .map_err(PutError::Record)
            .and_then(|record| fill.put(&record));
        match put {
            Ok(()) => {}
            Err(PutError::Record(text)) => return Err(lines_of.wrong(&text)),
            Err(PutError::Disk(failure)) => return Err(failure),
        }
    }
    fill.finish()
}

struct Lines<'a, R> {
    name: &'a str,
    input: R,
    number: u64,
    line: String,
}

impl<R: BufRead> Lines<'_, R> {
    fn next(&mut self) -> Result<Option<&str>, Failure> {
        self.number += 1;
        self.line.clear();
        let read = (&mut self.input).take(LINE_BYTES_MAX).read_line(&mut self.line);
        match read {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(self.line.trim_end_matches(['\n', '\r']))),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(self.wrong("it is not UTF-8")),
            Err(error) => Err(Failure {
                code: IO,
                text: format!("cannot read {}: {}", self.name, reason(&error)),
            }),
        }
    }

    fn wrong(&self, text: &str) -> Failure {
        Failure {
            code: DATA,
            text: format!("{}:{}: {text}; nothing was imported", self.name, self.number),
        }
    }
}

#[cfg(test)]
mod tests;
