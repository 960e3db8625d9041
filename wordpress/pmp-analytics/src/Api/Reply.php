<?php

declare(strict_types=1);

namespace PMP\Analytics\Api;

/**
 * The mesh's answer to one call, or the error that came instead.
 */
final class Reply
{
    /**
     * @param int                       $status      HTTP status; 0 without an answer.
     * @param array<string, mixed>|null $body        The answer's JSON object; null if it is not one.
     * @param string                    $error       Why there is no answer.
     * @param float|null                $retry_after Seconds until the mesh may be called again.
     * @param string                    $text        The answer as it came.
     * @param string                    $type        Its content type.
     * @param string                    $disposition Its content disposition.
     */
    public function __construct(
        public readonly int $status,
        public readonly ?array $body = null,
        public readonly string $error = '',
        public readonly ?float $retry_after = null,
        public readonly string $text = '',
        public readonly string $type = '',
        public readonly string $disposition = '',
    ) {
    }

    public function outcome(): Outcome
    {
        if (in_array($this->status, [0, 429, 502, 503, 504], true)) {
            return Outcome::Unavailable;
        }
        if ($this->status >= 200 && $this->status < 300) {
            // A portal or a broken proxy also answers 200.
            return isset($this->body['success']) ? Outcome::Accepted : Outcome::Failed;
        }
        if (! $this->is_of_the_mesh()) {
            return Outcome::Failed;
        }
        return match (true) {
            // Wrong keys, scopes or a wrong clock have to be fixed in the shop; the message is valid.
            in_array($this->status, [401, 403], true) => Outcome::Unavailable,
            // 404 refuses a message only if its path has a target; the caller handles that.
            in_array($this->status, [400, 404, 409, 413], true) => Outcome::Refused,
            default => Outcome::Failed,
        };
    }

    /**
     * One line for administrators, without any of the data that was sent.
     */
    public function reason(): string
    {
        if ($this->status === 0) {
            return $this->error;
        }
        $message = $this->is_of_the_mesh() ? (string) $this->body['message'] : '';
        return trim("HTTP {$this->status} {$message} " . implode('; ', $this->violations()));
    }

    /**
     * Which fields were refused and why, from google.rpc.BadRequest.
     *
     * @return list<string>
     */
    private function violations(): array
    {
        $lines = [];
        foreach ((array) ($this->body['details'] ?? []) as $detail) {
            $violations = is_array($detail) ? $detail['fieldViolations'] ?? $detail['field_violations'] ?? [] : [];
            foreach ((array) $violations as $violation) {
                if (is_array($violation)) {
                    $lines[] = ($violation['field'] ?? '') . ': ' . ($violation['description'] ?? '');
                }
            }
        }
        return $lines;
    }

    /**
     * The mesh reports errors as google.rpc.Status. A firewall's page with the same status is not its answer.
     */
    private function is_of_the_mesh(): bool
    {
        return is_int($this->body['code'] ?? null) && is_string($this->body['message'] ?? null);
    }
}
