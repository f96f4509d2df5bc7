//! Usage as Apache Parquet: the columns of the CSV, typed. Written a row group at a time, so that an export of years
//! needs no memory for years.

use std::io::Write;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::cashier::errand::UsageRecord;

/// Rows that wait to be written together: some megabytes, and few groups.
const ROWS_MAX: usize = 50_000;

/// The columns, in the order of the CSV. The counts are unsigned, but never past 2^53.
const SCHEMA: &str = "message usage {
    required binary entry (STRING);
    required int64 settled_at_ns (TIMESTAMP(NANOS, true));
    required binary account (STRING);
    required int64 settlement;
    required binary session (STRING);
    required binary service (STRING);
    required int64 bytes_out;
    required int64 bytes_in;
    required int64 nanoseconds;
    required int64 msat;
}";

/// Where a column's values come from.
enum Column {
    Text(fn(&UsageRecord) -> &str),
    Number(fn(&UsageRecord) -> u64),
}

/// As in the schema.
const COLUMNS: [Column; 10] = [
    Column::Text(|row| &row.entry),
    Column::Number(|row| row.settled_at_ns),
    Column::Text(|row| &row.account),
    Column::Number(|row| row.settlement),
    Column::Text(|row| &row.session),
    Column::Text(|row| row.service),
    Column::Number(|row| row.bytes_out),
    Column::Number(|row| row.bytes_in),
    Column::Number(|row| row.nanoseconds),
    Column::Number(|row| row.msat),
];

/// A Parquet file that is being written.
pub(super) struct UsageFile<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<UsageRecord>,
}

impl<W: Write + Send> UsageFile<W> {
    pub(super) fn new(to: W) -> Result<Self, ParquetError> {
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let properties = WriterProperties::builder()
            .set_created_by(concat!("milliway ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        Ok(Self {
            writer: SerializedFileWriter::new(to, schema, Arc::new(properties))?,
            rows: Vec::new(),
        })
    }

    pub(super) fn push(&mut self, row: UsageRecord) -> Result<(), ParquetError> {
        self.rows.push(row);
        if self.rows.len() >= ROWS_MAX {
            self.write_group()?;
        }
        Ok(())
    }

    /// Writes the rest and the footer, without which it is no Parquet file.
    pub(super) fn finish(mut self) -> Result<(), ParquetError> {
        if !self.rows.is_empty() {
            self.write_group()?;
        }
        self.writer.close().map(drop)
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        for column in COLUMNS {
            let Some(mut writer) = group.next_column()? else {
                return Err(ParquetError::General("the schema lacks a column".to_owned()));
            };
            match column {
                Column::Text(of) => {
                    let values: Vec<ByteArray> = rows.iter().map(|row| of(row).into()).collect();
                    writer.typed::<ByteArrayType>().write_batch(&values, None, None)?;
                }
                Column::Number(of) => {
                    let value = |row| i64::try_from(of(row)).unwrap_or(i64::MAX);
                    let values: Vec<i64> = rows.iter().map(value).collect();
                    writer.typed::<Int64Type>().write_batch(&values, None, None)?;
                }
            }
            writer.close()?;
        }
        group.close().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    fn record(number: u64) -> UsageRecord {
        UsageRecord {
            entry: format!("0-{number}"),
            settled_at_ns: 1_764_547_199_000_000_000 + number,
            account: format!("did:key:z6Mk{}", number % 3),
            settlement: number,
            session: format!("{number:016x}"),
            service: "turn",
            bytes_out: number * 1_000,
            bytes_in: 7,
            nanoseconds: 600_000_000_000,
            msat: (1 << 53) - 1 - number,
        }
    }

    #[test]
    fn what_is_written_is_read_back_over_several_row_groups() {
        let rows = ROWS_MAX as u64 + 3;
        let mut bytes = Vec::new();
        let mut file = UsageFile::new(&mut bytes).unwrap();
        (0..rows).for_each(|number| file.push(record(number)).unwrap());
        file.finish().unwrap();
        let reader = SerializedFileReader::new(axum::body::Bytes::from(bytes)).unwrap();
        let groups = reader.num_row_groups();
        let columns: Vec<i64> = (0..groups)
            .map(|group| reader.metadata().row_group(group).num_rows())
            .collect();
        assert_eq!(columns, [ROWS_MAX as i64, 3]);
        let names: Vec<String> = reader
            .metadata()
            .file_metadata()
            .schema_descr()
            .columns()
            .iter()
            .map(|column| column.name().to_owned())
            .collect();
        assert_eq!(names.join(","), UsageRecord::COLUMNS);
        for (number, row) in reader.get_row_iter(None).unwrap().enumerate() {
            let row = row.unwrap();
            let expected = record(number as u64);
            use parquet::record::RowAccessor as _;
            assert_eq!(row.get_string(0).unwrap(), &expected.entry);
            assert_eq!(row.get_string(2).unwrap(), &expected.account);
            assert_eq!(row.get_long(3).unwrap() as u64, expected.settlement);
            assert_eq!(row.get_string(4).unwrap(), &expected.session);
            assert_eq!(row.get_string(5).unwrap(), "turn");
            assert_eq!(row.get_long(6).unwrap() as u64, expected.bytes_out);
            assert_eq!(row.get_long(9).unwrap() as u64, expected.msat);
        }
    }
}
