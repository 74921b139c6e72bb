package tracking

// ClaimQuery is the statement that finds a row to claim; a test looks at its query plan.
const ClaimQuery = claimQuery
