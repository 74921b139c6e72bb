package replicate_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(workerDatabase) != "" {
		fmt.Println("ended:", work())
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}
