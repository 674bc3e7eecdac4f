//! Tasks that die of a panic are noticed: their owner is told, and may begin anew.
//!
//! May not decide what follows, nor touch any other room.

use tokio::task::JoinSet;

/// Runs `work` as a task of its own and waits for it; giving up the wait ends it.
///
/// # Errors
/// When it panicked: what it said.
pub async fn caught<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, String> {
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    match tasks.join_next().await {
        Some(Ok(done)) => Ok(done),
        Some(Err(error)) => Err(error.try_into_panic().map_or_else(
            |error| error.to_string(),
            |panic| match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
                (Some(text), _) => (*text).to_owned(),
                (_, Some(text)) => text.clone(),
                _ => "a panic without words".to_owned(),
            },
        )),
        None => Err("the task has vanished".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_harms_nobody() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let number = 3;
        let died = caught(async move { assert_eq!(number, 4, "not four") }).await;
        assert!(died.unwrap_err().contains("not four"));
    }
}
