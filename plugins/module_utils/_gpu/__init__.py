# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""NVIDIA GPUs of one host: the product catalogue, the readers, the record and the comparison of both."""
