"""A node is lost in mid-rollout, on a second node of the local cluster; `make test-nodes`.

Its kubelet is killed, with its pods serving on or out of reach. Kubernetes notices after 40 s, and
nobody ever confirms that its pods have ended.
"""
