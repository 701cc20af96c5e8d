mod environment;
mod filter;
mod plan;
