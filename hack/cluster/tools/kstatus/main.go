// kstatus reads JSON objects from standard input, one a line, and prints for each the status that
// kstatus computes (Current, InProgress, Failed, Terminating, Unknown): what Flux and `kubectl
// wait`-like tools see of an object without knowing its kind.
package main

import (
	"bufio"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// Objects in etcd have 1.5 MiB at most.
const longestLine = 4 << 20

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		word, err := compute(lines.Bytes())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(word)
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func compute(line []byte) (status.Status, error) {
	// Not encoding/json: it reads every number as a float, and kstatus then sees no generation.
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(line); err != nil {
		return "", err
	}
	result, err := status.Compute(object)
	if err != nil {
		return "", err
	}
	return result.Status, nil
}
