<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP_Config;

/**
 * Nobody has said yet where the mesh is.
 */
final class UnsetConfig extends PMP_Config
{
    public function gateway_url(): string
    {
        return '';
    }
}
