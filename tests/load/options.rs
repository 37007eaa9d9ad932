//! What was asked for on the command line. Started without a wish (`cargo test --benches`), the tool only says how.

/// How it is used.
pub(crate) const USAGE: &str = "\
Usage: cargo bench --bench load -- (--broker URL | --embedded) [options]

Compares the ingress with a bare publisher on the same RabbitMQ, in pairs.

  --broker URL       RabbitMQ; amqp://guest:guest@127.0.0.1:5672/%2f if left out
  --embedded         put the ingress on the embedded broker instead
  --pairs N          how many pairs (5)
  --seconds N        how long each run is measured (5)
  --connections N    connections, and messages in flight of the bare publisher (64)
  --body BYTES       about how large the bodies are (8192)
  --drain N          measure how fast a backlog of N joins is worked off instead
  --latency MS       with --drain: how long the platform's stand-in takes to answer (0)
  --uncompressed     let bodies travel as they are (broker.compression = none)";

/// What to do.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Compare.
    Measure(Options),
    /// Be the process that is measured.
    BeTheIngress,
    /// List the tests in here: there are none.
    Nothing,
    /// Say how it is used.
    Usage,
}

/// How to compare.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) broker: String,
    pub(crate) embedded: bool,
    pub(crate) pairs: usize,
    pub(crate) seconds: u64,
    pub(crate) connections: usize,
    pub(crate) body: usize,
    pub(crate) compress: bool,
    pub(crate) drain: Option<i64>,
    pub(crate) latency: u64,
}

/// Reads the arguments.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Wish, String> {
    let mut options = Options {
        broker: "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned(),
        embedded: false,
        pairs: 5,
        seconds: 5,
        connections: 64,
        body: 8192,
        compress: true,
        drain: None,
        latency: 0,
    };
    let mut asked = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo's and nextest's own.
            "--bench" | "--test" | "--exact" | "--nocapture" | "--ignored" => continue,
            "--list" | "--format" => return Ok(Wish::Nothing),
            "--ingress-child" => return Ok(Wish::BeTheIngress),
            "--help" | "-h" => return Ok(Wish::Usage),
            "--embedded" => {
                options.embedded = true;
                asked = true;
                continue;
            }
            "--uncompressed" => {
                options.compress = false;
                continue;
            }
            _ => {}
        }
        let Some(value) = arguments.next() else {
            return Err(format!("{argument} is no option, or lacks its value"));
        };
        match argument.as_str() {
            "--broker" => {
                options.broker = value;
                asked = true;
            }
            "--drain" => {
                options.drain = Some(number(&argument, &value)?);
                asked = true;
            }
            "--latency" => options.latency = number(&argument, &value)?,
            "--pairs" => options.pairs = number(&argument, &value)?,
            "--seconds" => options.seconds = number(&argument, &value)?,
            "--connections" => options.connections = number(&argument, &value)?,
            "--body" => options.body = number(&argument, &value)?,
            _ => return Err(format!("{argument} is no option")),
        }
    }
    Ok(if asked { Wish::Measure(options) } else { Wish::Usage })
}

fn number<T: std::str::FromStr + Default + PartialEq>(name: &str, value: &str) -> Result<T, String> {
    match value.parse() {
        Ok(number) if number != T::default() => Ok(number),
        _ => Err(format!("{name} takes a number above 0")),
    }
}
