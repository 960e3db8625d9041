<?php

declare(strict_types=1);

namespace PMP\Analytics\Api;

/**
 * The mesh's answer to one call, or what came instead of it.
 */
final class Reply
{
    /**
     * @param int                       $status      HTTP status; 0 when nobody answered.
     * @param array<string, mixed>|null $body        The answer's JSON object; null when it is none.
     * @param string                    $error       Why nobody answered.
     * @param float|null                $retry_after Seconds for which the mesh wants to be left alone.
     */
    public function __construct(
        public readonly int $status,
        public readonly ?array $body = null,
        public readonly string $error = '',
        public readonly ?float $retry_after = null,
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
            // Keys, scopes and the clock are the shop's to mend; the message is good.
            in_array($this->status, [401, 403], true) => Outcome::Unavailable,
            // 404 is about a message only where its call names somebody; the caller knows.
            in_array($this->status, [400, 404, 409, 413], true) => Outcome::Refused,
            default => Outcome::Failed,
        };
    }

    /**
     * One line for people. Says nothing of what was sent.
     */
    public function reason(): string
    {
        if ($this->status === 0) {
            return $this->error;
        }
        $said = $this->is_of_the_mesh() ? (string) $this->body['message'] : '';
        return trim("HTTP {$this->status} {$said} " . implode('; ', $this->violations()));
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
     * The mesh says what is wrong as google.rpc.Status. A firewall's page with the same number is not its verdict.
     */
    private function is_of_the_mesh(): bool
    {
        return is_int($this->body['code'] ?? null) && is_string($this->body['message'] ?? null);
    }
}
