"""Small changes to the code that something must notice: made, met by the tests, and told in docs/mutation.md."""
