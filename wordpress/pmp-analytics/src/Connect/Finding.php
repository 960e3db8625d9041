<?php

declare(strict_types=1);

namespace PMP\Analytics\Connect;

/**
 * What a check of the connection found, in words.
 */
final class Finding
{
    /**
     * @param string $kind `success`, `warning` or `error`, as WordPress names the kinds of its notices.
     */
    private function __construct(public readonly string $kind, public readonly string $text)
    {
    }

    public static function good(string $text): self
    {
        return new self('success', $text);
    }

    /** Something is missing, and the shop's figures are complete without it. */
    public static function minor(string $text): self
    {
        return new self('warning', $text);
    }

    public static function bad(string $text): self
    {
        return new self('error', $text);
    }
}
